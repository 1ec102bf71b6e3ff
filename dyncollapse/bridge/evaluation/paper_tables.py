"""The rows of the paper's Tables 1 and 2 that runs give, beside the paper's numbers, and what differs."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.runtime.settings import option

DIRECT = "low-rank-diagonal"  # DirectCLR


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables: which setting, its name there, and the paper's top-1 on ImageNet."""

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
PAPER_SUBVECTOR = 47.9  # DirectCLR, probed on the sub-vector only (Appendix F)
PAPER = {"arch": "resnet50", "epochs": 100, "batch_size": 4096}
IMAGENET_IMAGES = 1281167
IMAGENET = f"ImageNet ({IMAGENET_IMAGES} images)"
# Settings in which the runs of one row may not differ, and what may.
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
    """Runs that differ in their seeds alone, the paper's row they belong to, and what is to be said of them.

    `matched`: a linear projector with as many outputs as DirectCLR keeps dimensions, which the paper has not.
    """

    row: Row
    note: str
    matched: bool
    runs: list[Run]

    @property
    def name(self) -> str:
        """The row's, with its note."""
        return self.row.name + (f", {self.note}" if self.note else "")

    @staticmethod
    def spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
        """Mean and standard deviation over seeds (n - 1; None for one) of the values there are; None where none is."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None


def table(runs: Sequence[Run]) -> list[TableRow]:
    """Runs by row, in the order of ROWS; runs of a row that differ in more than the seed are rows of their own."""
    kept = [run.facts["embedding_dim"] for run in runs if run.recipe.head == DIRECT]
    usual = max(kept, key=kept.count) if kept else None
    rows = []
    for row in ROWS:
        groups: dict[str, list[Run]] = {}
        for run in sorted(runs, key=lambda run: (run.recipe.seed, str(run.folder))):
            if run.recipe.head == row.head:
                groups.setdefault(json.dumps(_fixed(run) | {"facts": run.facts}, sort_keys=True), []).append(run)
        usually: dict[str, Any] = {}  # the settings of most runs of the row, that others are told from
        for matched, group in sorted(
            ((row.head == "linear" and g[0].facts["embedding_dim"] == usual, g) for g in groups.values()),
            key=lambda found: (found[0], -len(found[1])),
        ):
            fixed = _fixed(group[0])
            usually = usually or fixed
            unlike = [f"{option(n)[2:]} {value}" for n, value in fixed.items() if value != usually[n]]
            rows.append(TableRow(row, "matched" if matched else ", ".join(unlike), matched, group))
    return rows


def _fixed(run: Run) -> dict[str, Any]:
    """What runs of one row have in common."""
    return {name: value for name, value in run.recipe.as_dict().items() if name not in VARYING}


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Rows, and sentences on what differs from the paper, what contradicts it, and what is not finished."""
    rows = table_values(runs)
    return {
        "rows": rows,
        "differences": differences(runs) if runs else [],
        "contradictions": contradictions(rows),
        "unfinished": unfinished(runs),
    }


def table_values(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The table as plain values, a dict a row."""
    found = []
    for row in table(runs):
        first = row.runs[0]
        outputs = first.facts["embedding_dim"]
        errors = row.spread([probe["error"] for run in row.runs if (probe := run.probe()) is not None])
        top1 = row.spread([run.top1() for run in row.runs])
        sub = row.spread([run.top1(outputs) for run in row.runs]) if row.row.head == DIRECT else None
        ranks = {
            f"{space}_{name}": row.spread([run.measure(space, name) for run in row.runs])
            for space in ("representation", "embedding")
            for name in ("rankme", "effective_rank", "participation_ratio")
        }
        verdicts = [run.diagnosis["spaces"]["representation"]["verdict"] for run in row.runs if run.diagnosis]
        collapsed = row.spread([verdict["collapsed"] for verdict in verdicts])
        found.append(
            {
                "row": row.name,
                "projector": row.row.head,
                "source": "ours: matched output" if row.matched else row.row.source,
                "paper_top1": None if row.note else row.row.paper,
                "top1": top1 and top1[0],
                "top1_spread": top1 and top1[1],
                "top1_error": errors and errors[0],
                "seeds": sorted(run.recipe.seed for run in row.runs),
                "subvector_top1": sub and sub[0],
                "subvector_spread": sub and sub[1],
                "paper_subvector_top1": PAPER_SUBVECTOR if sub and not row.note else None,
                "representation_dim": first.facts["representation_dim"],
                "embedding_dim": outputs,
                **{name: value and value[0] for name, value in ranks.items()},
                "collapsed": collapsed and collapsed[0],
                "mechanism": "/".join(sorted({verdict["mechanism"] for verdict in verdicts})) or None,
                "finished": all(run.finished for run in row.runs),
            }
        )
    return found


def differences(runs: Sequence[Run]) -> list[str]:
    """What of these runs is unlike the paper's, a sentence each."""
    told = []

    def values(get: Callable[[Run], Any]) -> str:
        return ", ".join(sorted({str(get(run)) for run in runs}, key=lambda text: (len(text), text)))

    compared: tuple[tuple[str, Callable[[Run], Any], Any], ...] = (
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
            told.append(f"{name}: {here} here, {paper} in the paper")
    seeds = {run.recipe.seed for run in runs}
    bars = "with the standard deviation over them" if len(seeds) > 1 else "so that no spread over seeds is known"
    told.append(f"seeds: {len(seeds)} here, {bars}; one in the paper, without error bars")
    return told


def _data(run: Run) -> str:
    images = run.facts["images"]
    return IMAGENET if images == IMAGENET_IMAGES else f"{run.facts['data']} ({images} images)"


def _diagnosed(run: Run) -> str:
    if run.diagnosis is None:
        return "none yet"
    config = run.diagnosis["config"]
    return f"of the {config['split']} images, {config['views']} views"


def contradictions(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pairs of rows whose order here is the opposite of the paper's, beyond twice their uncertainty.

    That is the standard deviation over seeds, or for one seed the probe's standard error, which is the less of the two.
    """
    told = []
    rows = [v for v in values if v["paper_top1"] is not None and v["top1"] is not None]
    for k, a in enumerate(rows):
        for b in rows[k + 1 :]:
            better, worse = (a, b) if a["paper_top1"] > b["paper_top1"] else (b, a)
            gap = worse["top1"] - better["top1"]
            unsure = [v["top1_error"] if v["top1_spread"] is None else v["top1_spread"] for v in (a, b)]
            if gap > 2 * math.hypot(*unsure) and better["paper_top1"] - worse["paper_top1"] > 1:
                told.append(
                    f"{worse['row']} beats {better['row']} by {gap:.1f} here; in the paper it loses by "
                    f"{better['paper_top1'] - worse['paper_top1']:.1f}"
                )
    return told


def unfinished(runs: Sequence[Run]) -> list[str]:
    """Runs without their last step or without a probe, a sentence each."""
    told = []
    for run in runs:
        if not run.finished:
            at = run.log[-1]["step"] if run.log else 0
            kept = "" if checkpoints(run.folder) else ", without a checkpoint"
            told.append(f"{run.folder} is at step {at} of {run.facts.get('steps')}{kept}")
        elif run.top1() is None:
            told.append(f"{run.folder} has no probe yet: dyncollapse bridge probe --checkpoint {run.folder}")
    return told


def as_markdown(values: Sequence[Mapping[str, Any]]) -> str:
    """The table for a document."""
    head = "| projector | paper | top-1 here | seeds | outputs | RankMe r | effective rank r | effective rank z |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in values:
        top1 = as_top1(row["top1"], row["top1_spread"])
        ranks = (row[k] for k in ("representation_rankme", "representation_effective_rank", "embedding_effective_rank"))
        cells = [row["row"], "-" if row["paper_top1"] is None else row["paper_top1"], top1, len(row["seeds"])]
        lines.append(f"| {' | '.join(map(str, [*cells, row['embedding_dim'], *map(as_number, ranks)]))} |")
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            lines.append(f"| probed on the sub-vector only | {row['paper_subvector_top1']} | {top1} | | | | | |")
    return "\n".join(lines) + "\n"


def as_top1(value: float | None, spread: float | None = None) -> str:
    """An accuracy in per cent, with its spread over seeds where there is one; a dash where there is none."""
    return "-" if value is None else f"{value:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def as_number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"
