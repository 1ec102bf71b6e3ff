"""Compare runs with the rows of the paper's Tables 1 and 2, and say what differs."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, TypedDict

from dyncollapse.bridge.spaces import SpaceName
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.bridge.training.schemas import MeasureName
from dyncollapse.runtime.settings import option

DIRECT = "low-rank-diagonal"  # DirectCLR


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables.

    Attributes:
        head: The projector's name here.
        name: The row's name in the paper.
        paper: The paper's top-1 on ImageNet, in percent.
        source: The table.
    """

    head: str
    name: str
    paper: float | None
    source: str


# Linear probe top-1 of ResNet-50 after 100 epochs on ImageNet.
ROWS = (
    Row("mlp", "nonlinear, 2 layers", 66.5, "Table 1"),
    Row("linear", "linear, 1 layer", 61.1, "Tables 1, 2"),
    Row("none", "none", 51.5, "Tables 1, 2"),
    Row("low-rank-diagonal", "DirectCLR (low-rank diagonal)", 62.7, "Tables 1, 2"),
    Row("low-rank", "low-rank, fixed", 62.3, "Table 2"),
    Row("diagonal", "diagonal, trainable", 60.2, "Table 2"),
    Row("orthogonal", "orthogonal", 52.2, "Table 2"),
    Row("random-subvector", "random sub-vector", 43.0, "Appendix F"),
)
PAPER_SUBVECTOR = 47.9  # top-1 of DirectCLR, probed on the sub-vector only (Appendix F)
PAPER = {"arch": "resnet50", "epochs": 100, "batch_size": 4096}
IMAGENET_IMAGES = 1281167
IMAGENET = f"ImageNet ({IMAGENET_IMAGES} images)"
# Settings in which the runs of one row may differ.
VARYING: tuple[str, ...] = (
    "seed",
    "preset",
    "device",
    "workers",
    "threads",
    "strict",
    "log_every",
    "monitor_every",
    "checkpoint_every",
)
VARYING += ("keep", "compile", "tensorboard", "pipeline", "method", "projector")


@dataclass(frozen=True)
class TableRow:
    """Runs of one row that differ in their seeds only.

    Attributes:
        row: The paper's row that they belong to.
        note: What distinguishes them from most runs of that row; empty if nothing does.
        matched: Whether it is the linear projector with as many outputs as DirectCLR keeps dimensions, which the paper
            does not have.
        runs: The runs, by seed.
    """

    row: Row
    note: str
    matched: bool
    runs: list[Run]

    @property
    def name(self) -> str:
        """The row's name, with the note."""
        return self.row.name + (f", {self.note}" if self.note else "")

    def mean_rank(self, space: SpaceName, name: MeasureName) -> float | None:
        """The mean over seeds of a rank measure of a space; None if nothing was measured."""
        spread = self.spread([run.measure(space, name) for run in self.runs])
        return spread and spread[0]

    @staticmethod
    def spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation over seeds, without None; the latter is None for a single value."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None


class RowValues(TypedDict):
    """A row as plain JSON values: means over seeds, or None if nothing was measured."""

    row: str
    projector: str
    source: str
    paper_top1: float | None
    top1: float | None
    top1_spread: float | None
    top1_error: float | None
    seeds: list[int]
    subvector_top1: float | None
    subvector_spread: float | None
    paper_subvector_top1: float | None
    representation_dim: int
    embedding_dim: int
    representation_rankme: float | None
    representation_effective_rank: float | None
    representation_participation_ratio: float | None
    embedding_rankme: float | None
    embedding_effective_rank: float | None
    embedding_participation_ratio: float | None
    collapsed: float | None
    mechanism: str | None
    finished: bool


class Comparison(TypedDict):
    """The rows of the table, and sentences on them."""

    rows: list[RowValues]
    differences: list[str]
    contradictions: list[str]
    unfinished: list[str]


def table(runs: Sequence[Run]) -> list[TableRow]:
    """Group runs by row, in the order of ROWS; runs that differ in more than the seed form rows of their own."""
    kept = [run.facts["embedding_dim"] for run in runs if run.recipe.head == DIRECT]
    usual = max(kept, key=kept.count) if kept else None
    rows = []
    for row in ROWS:
        groups: dict[str, list[Run]] = {}
        for run in sorted(runs, key=lambda run: (run.recipe.seed, str(run.folder))):
            if run.recipe.head == row.head:
                groups.setdefault(json.dumps(_fixed(run) | {"facts": run.facts}, sort_keys=True), []).append(run)
        common: dict[str, object] = {}  # the settings of most runs of the row
        for matched, group in sorted(
            ((row.head == "linear" and runs[0].facts["embedding_dim"] == usual, runs) for runs in groups.values()),
            key=lambda pair: (pair[0], -len(pair[1])),
        ):
            fixed = _fixed(group[0])
            common = common or fixed
            unlike = [f"{option(name)[2:]} {value}" for name, value in fixed.items() if value != common[name]]
            rows.append(TableRow(row, "matched" if matched else ", ".join(unlike), matched, group))
    return rows


def _fixed(run: Run) -> dict[str, object]:
    """The settings in which runs of one row agree."""
    return {name: value for name, value in run.recipe.as_dict().items() if name not in VARYING}


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the paper's Tables 1 and 2.

    Args:
        runs: Runs of any projectors and seeds.

    Returns:
        Plain JSON values: `rows`, a dict for each row of the table; and lists of sentences: `differences` in settings,
        `contradictions` in the order of rows, and `unfinished` runs.

    References:
        Jing et al. (2022), arXiv:2110.09348, Tables 1 and 2, Appendix F.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import Run, resolve
        >>> facts = {"data": "digits", "images": 1297, "representation_dim": 128, "embedding_dim": 64, "steps": 600}
        >>> probe = {"method": "logistic", "dimensions": 128, "top1": 94.0, "error": 1.1, "step": 600}
        >>> run = Run(Path("mlp"), resolve({"data": "digits"}), facts, [probe], None, [{"step": 600, "loss": 4.1}])
        >>> compared = compare([run])
        >>> [(row["row"], row["paper_top1"], row["top1"]) for row in compared["rows"]]
        [('nonlinear, 2 layers', 66.5, 94.0)]
        >>> compared["differences"][0]
        'data: digits (1297 images) here, ImageNet (1281167 images) in the paper'
    """
    rows = table_values(runs)
    return {
        "rows": rows,
        "differences": differences(runs) if runs else [],
        "contradictions": contradictions(rows),
        "unfinished": unfinished(runs),
    }


def table_values(runs: Sequence[Run]) -> list[RowValues]:
    """The rows of the table as plain JSON values."""
    rows = []
    for row in table(runs):
        first = row.runs[0]
        outputs = first.facts["embedding_dim"]
        errors = row.spread([probe["error"] for run in row.runs if (probe := run.probe()) is not None])
        top1 = row.spread([run.top1() for run in row.runs])
        sub = row.spread([run.top1(outputs) for run in row.runs]) if row.row.head == DIRECT else None
        verdicts = [run.diagnosis["spaces"]["representation"]["verdict"] for run in row.runs if run.diagnosis]
        collapsed = row.spread([verdict["collapsed"] for verdict in verdicts])
        rows.append(
            RowValues(
                row=row.name,
                projector=row.row.head,
                source="not in the paper: matched output" if row.matched else row.row.source,
                paper_top1=None if row.note else row.row.paper,
                top1=top1 and top1[0],
                top1_spread=top1 and top1[1],
                top1_error=errors and errors[0],
                seeds=sorted(run.recipe.seed for run in row.runs),
                subvector_top1=sub and sub[0],
                subvector_spread=sub and sub[1],
                paper_subvector_top1=PAPER_SUBVECTOR if sub and not row.note else None,
                representation_dim=first.facts["representation_dim"],
                embedding_dim=outputs,
                representation_rankme=row.mean_rank("representation", "rankme"),
                representation_effective_rank=row.mean_rank("representation", "effective_rank"),
                representation_participation_ratio=row.mean_rank("representation", "participation_ratio"),
                embedding_rankme=row.mean_rank("embedding", "rankme"),
                embedding_effective_rank=row.mean_rank("embedding", "effective_rank"),
                embedding_participation_ratio=row.mean_rank("embedding", "participation_ratio"),
                collapsed=collapsed and collapsed[0],
                mechanism="/".join(sorted({verdict["mechanism"] for verdict in verdicts})) or None,
                finished=all(run.finished for run in row.runs),
            )
        )
    return rows


def differences(runs: Sequence[Run]) -> list[str]:
    """Sentences on the settings in which runs differ from the paper's."""
    sentences = []

    def values(get: Callable[[Run], object]) -> str:
        return ", ".join(sorted({str(get(run)) for run in runs}, key=lambda text: (len(text), text)))

    compared: tuple[tuple[str, Callable[[Run], object], object], ...] = (
        ("data", _data, IMAGENET),
        ("backbone", lambda run: run.recipe.arch, PAPER["arch"]),
        ("representation", lambda run: run.facts["representation_dim"], 2048),
        ("image size", lambda run: run.recipe.image_size, 224),
        ("temperature", lambda run: run.recipe.temperature, 0.1),
        ("weight decay", lambda run: f"{run.recipe.weight_decay:g}", "1e-06"),
        ("epochs", lambda run: run.recipe.epochs, PAPER["epochs"]),
        ("batch size", lambda run: run.recipe.batch_size, PAPER["batch_size"]),
        ("optimiser", lambda run: f"{run.recipe.optimiser} at lr {run.recipe.lr:g}", "lars at lr 4.8"),
        ("augmentations", lambda run: run.recipe.augment, "imagenet"),
        ("spectra", _diagnosed, "of the validation images, not augmented"),
        ("probe", lambda run: " and ".join(sorted({p["method"] for p in run.probes})) or "none yet", "sgd"),
    )
    for name, get, paper in compared:
        here = values(get)
        if here != str(paper):
            sentences.append(f"{name}: {here} here, {paper} in the paper")
    seeds = {run.recipe.seed for run in runs}
    bars = "with the standard deviation over them" if len(seeds) > 1 else "so that no spread over seeds is known"
    sentences.append(f"seeds: {len(seeds)} here, {bars}; one in the paper, without error bars")
    return sentences


def _data(run: Run) -> str:
    images = run.facts["images"]
    return IMAGENET if images == IMAGENET_IMAGES else f"{run.facts['data']} ({images} images)"


def _diagnosed(run: Run) -> str:
    if run.diagnosis is None:
        return "none yet"
    config = run.diagnosis["config"]
    return f"of the {config['split']} images, {config['views']} views"


def contradictions(values: Sequence[RowValues]) -> list[str]:
    """Sentences on pairs of rows whose order is the opposite of the paper's, by more than twice their uncertainty.

    The uncertainty is the standard deviation over seeds; for one seed it is the probe's standard error, which does not
    contain the spread over seeds.

    Args:
        values: Rows from `table_values`.

    Returns:
        The sentences.
    """
    sentences = []
    measured = [
        _Accuracies(row["row"], paper, top1, row["top1_error"] if row["top1_spread"] is None else row["top1_spread"])
        for row in values
        if (paper := row["paper_top1"]) is not None and (top1 := row["top1"]) is not None
    ]
    for pair in combinations(measured, 2):
        worse, better = sorted(pair, key=lambda row: row.paper)
        gap, gap_there = worse.top1 - better.top1, better.paper - worse.paper
        if gap > 2 * math.hypot(worse.error or 0.0, better.error or 0.0) and gap_there > 1:
            sentences.append(
                f"{worse.name} beats {better.name} by {gap:.1f} here; in the paper it loses by {gap_there:.1f}"
            )
    return sentences


class _Accuracies(NamedTuple):
    """A row's top-1 in the paper and here, and the uncertainty here, all in percent."""

    name: str
    paper: float
    top1: float
    error: float | None


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Sentences on runs that lack their last step or a probe."""
    sentences = []
    for run in runs:
        if not run.finished:
            at = run.log[-1]["step"] if run.log else 0
            kept = "" if checkpoints(run.folder) else ", without a checkpoint"
            sentences.append(f"{run.folder} is at step {at} of {run.facts.get('steps')}{kept}")
        elif run.top1() is None:
            sentences.append(f"{run.folder} has no probe yet: dyncollapse bridge probe --checkpoint {run.folder}")
    return sentences


def as_markdown(values: Sequence[RowValues]) -> str:
    """The rows as a Markdown table."""
    head = "| projector | paper | top-1 here | seeds | outputs | RankMe r | effective rank r | effective rank z |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in values:
        top1 = as_top1(row["top1"], row["top1_spread"])
        ranks = (
            row["representation_rankme"],
            row["representation_effective_rank"],
            row["embedding_effective_rank"],
        )
        cells = [row["row"], "-" if row["paper_top1"] is None else row["paper_top1"], top1, len(row["seeds"])]
        lines.append(f"| {' | '.join(map(str, [*cells, row['embedding_dim'], *map(as_number, ranks)]))} |")
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            lines.append(f"| probed on the sub-vector only | {row['paper_subvector_top1']} | {top1} | | | | | |")
    return "\n".join(lines) + "\n"


def as_top1(value: float | None, spread: float | None = None) -> str:
    """Format an accuracy in percent, with its spread over seeds if there is one; a dash for None."""
    return "-" if value is None else f"{value:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def as_number(value: float | None) -> str:
    """Format a number with three digits; a dash for None."""
    return "-" if value is None else f"{value:.3g}"
