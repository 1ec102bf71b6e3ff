"""The rows of the paper's Tables 1 and 2, and the runs that belong to each."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from dyncollapse.bridge.spaces import SpaceName
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
        short: A shorter name, for narrow tables.
        paper: The paper's top-1 on ImageNet, in percent.
        source: The table.
    """

    head: str
    name: str
    short: str
    paper: float
    source: str


# Linear probe top-1 of ResNet-50 after 100 epochs on ImageNet.
ROWS = (
    Row("mlp", "nonlinear, 2 layers", "nonlinear", 66.5, "Table 1"),
    Row("linear", "linear, 1 layer", "linear", 61.1, "Tables 1, 2"),
    Row("none", "none", "none", 51.5, "Tables 1, 2"),
    Row("low-rank-diagonal", "DirectCLR (low-rank diagonal)", "DirectCLR", 62.7, "Tables 1, 2"),
    Row("low-rank", "low-rank, fixed", "low-rank", 62.3, "Table 2"),
    Row("diagonal", "diagonal, trainable", "diagonal", 60.2, "Table 2"),
    Row("orthogonal", "orthogonal", "orthogonal", 52.2, "Table 2"),
    Row("random-subvector", "random sub-vector", "random", 43.0, "Appendix F"),
)
# DirectCLR, probed on the sub-vector only.
SUBVECTOR = Row(DIRECT, "DirectCLR probed on the sub-vector", "sub-vector", 47.9, "Appendix F")
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
    "keep",
    "compile",
    "tensorboard",
    "pipeline",
    "method",
    "projector",
)
# Settings of the projector, in which the paper's rows differ.
OF_PROJECTOR = ("d0", "hidden_dim", "out_dim")


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


def table(runs: Sequence[Run]) -> list[TableRow]:
    """Group runs by row, in the order of ROWS; runs that differ in more than the seed form rows of their own.

    Of a row's groups, the first one has the settings that most runs of all rows have; if none has, most of its own.

    Args:
        runs: Runs of any projectors, seeds and settings.

    Returns:
        The groups. All but the first of each row have a note on what distinguishes them from it.
    """
    if not runs:
        return []
    kept = [run.facts["embedding_dim"] for run in runs if run.recipe.head == DIRECT]
    usual = max(kept, key=kept.count) if kept else None
    most_common = Counter(map(shared_settings, runs)).most_common(1)[0][0]
    rows = []
    for row in ROWS:
        groups: dict[str, list[Run]] = {}
        for run in sorted(runs, key=lambda run: (run.recipe.seed, str(run.folder))):
            if run.recipe.head == row.head:
                agreed = json.dumps(fixed_settings(run) | {"facts": run.facts}, sort_keys=True)
                groups.setdefault(agreed, []).append(run)
        common: dict[str, object] = {}  # the settings of most runs of the row
        for matched, group in sorted(
            ((row.head == "linear" and runs[0].facts["embedding_dim"] == usual, runs) for runs in groups.values()),
            key=lambda pair: (pair[0], shared_settings(pair[1][0]) != most_common, -len(pair[1])),
        ):
            fixed = fixed_settings(group[0])
            common = common or fixed
            unlike = [f"{option(name)[2:]} {value}" for name, value in fixed.items() if value != common[name]]
            rows.append(TableRow(row, "matched" if matched else ", ".join(unlike), matched, group))
    return rows


def fixed_settings(run: Run) -> dict[str, object]:
    """The settings in which runs of one row agree."""
    return {name: value for name, value in run.recipe.as_dict().items() if name not in VARYING}


def shared_settings(run: Run) -> tuple[tuple[str, str], ...]:
    """The settings in which rows agree that can be compared, with the number of images: names and values."""
    settings = fixed_settings(run) | {"images": run.facts["images"]}
    return tuple((name, str(value)) for name, value in settings.items() if name not in OF_PROJECTOR)


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
                paper_subvector_top1=SUBVECTOR.paper if sub and not row.note else None,
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
