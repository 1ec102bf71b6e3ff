"""What the commands show: tables, and the picture of a run."""

import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dyncollapse.claims import Checked
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.shared_signal import SharedSignal
from dyncollapse.diagnostics.verdict import Verdict
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import printable
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import time_per_step
from dyncollapse.simulation.verdict import moment
from dyncollapse.theory.population import POPULATION_FACTOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Columns (ours): a file or a pipe has no width, and definitions beside the measures need room.
WIDTH_OF_FILES, WIDTH_FOR_WORDS = 140, 100


def print_outcome(outcome: Outcome, found: dict[str, Any], *, to_stderr: bool) -> None:
    """Print a row per dimension and the verdict; `found` is the JSON report."""
    judged = outcome.verdict
    assert judged is not None
    ends = outcome.ends
    first = next(iter(ends.values()))
    variances = [_column(values.mean(0).tolist()) for values in (first.data_var, first.aug_var, first.ratio)]
    linear = outcome.simulation.objective.activation == "linear"
    kind = ("mode", "data var", "aug var") if linear else ("dimension", "embedding var", "of it aug")
    table = open_table(*kind, "rho", *ends, "collapsed?")
    for k, fate in enumerate(_fates(judged, time_per_step(outcome.simulation.configuration))):
        row = [f"{k + 1}", *(column[k] for column in variances)]
        for end in ends.values():
            values = end.singular_value[:, k]
            row.append(f"{float(values.mean()):.3g} ± {float(values.std(correction=0)):.1g}")
        table.add_row(*row, fate)
    console = open_console(to_stderr)
    console.print(table)
    for other, name in (("flow", "flow"), ("population", "population flow")):
        distance = found[f"sgd_vs_{other}"]
        if distance is not None and None not in distance.values():
            console.print(
                f"SGD and {name} differ by {distance['relative_distance']:.2g} of the flow's norm at most, "
                f"{distance['at_end']:.2g} at the end."
            )
    if "population" in ends:
        console.print(_population_limit(found), soft_wrap=True)
    if count := found["prediction"]["at_threshold"]:
        console.print(
            f"Modes at the threshold: {count} of {outcome.simulation.task.dim} have rho = 1 up to round-off. They rest "
            "at zero, but decay by a power of time only.",
            soft_wrap=True,
        )
    console.print(judged.sentence, style="bold", soft_wrap=True)


def _fates(judged: Verdict, step: float) -> list[str]:
    told = []
    for one in judged.dimensions:
        fate, escape = one.fate, None if one.escape_time is None else moment(one.escape_time, step)
        end = "" if escape is None else " for ever" if escape == "never" else f" until {escape}"
        told.append(f"{fate}{end}" if fate.collapsed else "no")
    return told


def _population_limit(found: dict[str, Any]) -> str:
    """Say whether the population flow may be compared with what ran on finite batches."""
    name = next(n for n in ("sgd", "flow", "population") if n in found["dynamics"])
    limit, n = found["dynamics"][name]["population_limit"], found["config"]["batch_size"]
    needed = limit["negatives_needed"]
    if needed == 0:
        return "Population limit: the expected flow at every N; what differs is the noise of SGD and of fixed batches."
    least = "more than any" if needed is None else f"N >= {POPULATION_FACTOR * needed:.3g}"
    counts = (
        "" if limit["effective_negatives"] is None else f", effectively {limit['effective_negatives']:.3g} negatives"
    )
    return (
        f"Population limit at the end of {name}: {'valid' if limit['valid'] else 'not valid'} "
        f"(it takes {least}; N = {n}{counts})."
    )


def print_claims(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print a row per claim: what was measured, its bound, whether it holds and whether that is expected."""
    if not checked:
        return
    table = open_table("claim", "source", "measured", "", "bound", "holds", "as expected", "seconds", left=2)
    for result in checked:
        claim, measured = result.claim, result.measured
        numbers = ("error", "", "")
        if measured is not None:
            numbers = (f"{measured.value:.3g}", measured.relation, f"{measured.bound:.3g}")
        verdicts = ("yes" if result.holds else "no", "NO" if result.surprising else "yes")
        style = "red" if result.surprising else None
        source = claim.source.split(" (")[0]
        table.add_row(claim.name, source, *numbers, *verdicts, f"{result.seconds:.1f}", style=style)
    console = open_console(to_stderr)
    console.print(table)
    for result in checked:
        if result.error:
            console.print(f"{result.claim.name}: {result.error}", style="red", soft_wrap=True)
    unexpected = sum(result.surprising for result in checked)
    failing = [result.claim.name for result in checked if not (result.holds or result.surprising)]
    console.print(
        f"{len(checked) - unexpected} of {len(checked)} claims behave as expected"
        + (f"; {', '.join(failing)} does not hold, as expected" if failing else "")
        + ".",
        style="bold",
        soft_wrap=True,
    )


def print_explanation(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print of each claim what it says, what is measured and why the bound is what it is."""
    console = open_console(to_stderr)
    for result in checked:
        claim = result.claim
        console.print()
        texts = (claim.statement, f"Measured: {claim.quantity}. {claim.explanation}")
        for text in (f"{claim.name} ({claim.source})", *texts):
            console.print(*textwrap.wrap(text, 100), sep="\n")


def print_embeddings(report: EmbeddingReport, file: str, *, to_stderr: bool) -> None:
    """Print size, spectrum, measures with their intervals and definitions, warnings and the verdict."""
    console, found = open_console(to_stderr), report.conventions
    kind = "normalised" if found["normalised"] else "not normalised"
    stored = found["dtype"] + ("" if found["precision"] == found["dtype"] else f" (rounded to {found['precision']})")
    facts = f"{printable(file)}: {report.samples} samples x {report.dim} dimensions, {stored}, {kind}, {report.space}"
    console.print(facts, soft_wrap=True)
    console.print()
    plain = not console.encoding.lower().startswith("utf")
    width = max(16, min(64, console.width - 24))  # beside the chart stand numbers and names
    lines = spectrum_lines(
        report.spectrum.tolist(), report.noise_floor, report.verdict.threshold, plain=plain, width=width
    )
    console.print(*lines, sep="\n", soft_wrap=True)
    console.print()
    table = open_table("measure", "value", "95 % interval", left=1)
    if console.width >= WIDTH_FOR_WORDS:
        table.add_column("definition")  # the only one that may be wrapped: words give way, numbers never
    for name, value in report.measures.items():
        bar = report.intervals[name]
        interval = "" if bar is None else f"{bar[0]:.4g} .. {bar[1]:.4g}"
        definition = re.sub(r" \([^()]*\d{4}\)$", "", found[name])  # JSON and page keep the sources
        cells = (name, "-" if value is None else f"{value:.4g}", interval, definition)
        table.add_row(*cells[: len(table.columns)])
    console.print(table)
    console.print()
    if report.ratios is not None:
        console.print(augmentation_sentence(report), soft_wrap=True)
    for text in report.warnings:
        console.print(f"warning: {text}", style="yellow", soft_wrap=True)
    bar = report.intervals["collapsed"]
    console.print(
        f"Collapsed means a variance up to {report.verdict.threshold:.2g}: the larger of the noise floor, "
        f"{report.noise_floor:.2g}, and of what is small beside the other dimensions, {report.relative_level:.2g}."
        + ("" if bar is None else f" 95 % interval: {' to '.join(f'{k:g}' for k in sorted(set(bar)))} dimensions."),
        soft_wrap=True,
    )
    console.print(report.verdict.sentence, style="bold", soft_wrap=True)


def augmentation_sentence(report: EmbeddingReport) -> str:
    """Say how augmentation compares with data, for a report that has `ratios`."""
    assert report.ratios is not None
    found = report.conventions
    if not len(report.ratios):
        return "Augmentation over data: nothing varies, so there is no ratio."
    weights = "every negative alike" if found["weights"] == "uniform" else f"the softmax of {found['weights']}"
    if found["weights"] == "ntxent":
        weights += " (a diagnostic: not this loss's exact force)"
    lowest, highest = report.ratios[-1], report.ratios[0]
    pairs = report.input_pairs or report.pairs
    assert pairs is not None
    traces = [float(side.diagonal().sum()) for side in (pairs.data, pairs.augmentation)]
    told = (
        f"Augmentation over data, rho (Sigma1 u = rho Sigma0 u) in the {found['augmentation_space']}, "
        f"{found['views']}, {weights}: from {float(lowest):.3g} to {float(highest):.3g}; "
        f"tr Sigma1 = {traces[1]:.3g}, tr Sigma0 = {traces[0]:.3g}."
    )
    if report.augmentation_share is not None:
        told += (
            f" Augmentation beats data in {report.augmentation_share:.0%} of directions, counted on one half of the "
            "samples along those that the other half finds, every negative alike."
        )
    elif report.signal is not None:
        told += f" {signal_sentence(report.signal)}"
    return told


def signal_sentence(signal: SharedSignal) -> str:
    """Say in how many directions two views share signal, and what sampling explains in the others."""
    told = f"The views share signal in {signal.positive} of {signal.tested} tested directions or more"
    if signal.negative:
        told += f" and are negatively correlated in {signal.negative}"
    if signal.positive + signal.negative < signal.tested:
        told += f"; in the others sampling explains correlations up to {signal.explained:.2g}"
    return f"{told}."


def spectrum_lines(
    values: Sequence[float], floor: float, threshold: float, *, plain: bool = False, width: int = 64, height: int = 12
) -> list[str]:
    """A descending spectrum as lines of text: log10 variance over rank, noise floor and threshold as lines.

    A column is the mean log of its ranks, or a rank has several columns and its dot in the middle of them; values of 0
    are drawn on the lowest line. `plain` keeps to ASCII.
    """
    dot, below, cut = "*-=" if plain else "•┄═"
    if not any(value > 0 for value in values):
        return ["(nothing varies: every variance is 0)"]
    positive = [v for v in (*values, floor, threshold) if v > 0]
    high, low = math.log10(max(positive)), math.log10(min(positive))
    span = max(high - low, 1.0)

    def row(value: float) -> int:
        log = math.log10(value) if value > 0 else high - span
        return round((high - log) / span * (height - 1))

    groups = min(width, len(values))  # of ranks
    step = min(4, width // groups)
    cells = [[" "] * (groups * step) for _ in range(height)]
    names = {}
    for level, mark, name in ((floor, below, "noise floor"), (threshold, cut, "collapsed below")):
        if level > 0:
            both = row(level) in names
            names[row(level)] = f"{name} (noise floor)" if both else name
            cells[row(level)] = [mark] * (groups * step)
    edges = [len(values) * c // groups for c in range(groups + 1)]
    for c, (i, j) in enumerate(itertools.pairwise(edges)):
        cells[round(sum(map(row, values[i:j])) / (j - i))][c * step + (step - 1) // 2] = dot
    lines = ["log10 of covariance eigenvalues" + (" (0 at the bottom)" if min(values) <= 0 else "")]
    for r, line in enumerate(cells):
        tick = round(high - span * r / (height - 1), 1) + 0.0  # no -0.0
        label = f"{tick:6.1f} " if r % 3 == 0 or r == height - 1 else " " * 7
        lines.append(f"{label}|{''.join(line)} {names.get(r, '')}".rstrip())
    first, last = (step - 1) // 2, (groups - 1) * step + (step - 1) // 2
    ranks = " " * first + "1"
    if last > first:
        ranks += f"{len(values):>{last - first}}"
    return [*lines, f"{'':8}{ranks}"]


class _Table(Table):
    """A table whose cells are shown as they are: terminal codes in them do nothing."""

    def add_row(self, *cells: Any, **style: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **style)


class _Console(Console):
    """A console that prints each text as one line, whatever is in it."""

    def print(self, *objects: Any, **style: Any) -> None:
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **style)


def open_table(*columns: str, left: int = 0) -> Table:
    """A table without lines; the first `left` columns are words."""
    table = _Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def open_console(to_stderr: bool) -> Console:
    """The terminal, or a file or pipe that is wide enough for tables. Square brackets are no markup."""
    console = _Console(stderr=to_stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    return console


def _column(values: list[float]) -> list[str]:
    """Three decimals for all, unless the largest has too few or too many digits for that; a dash for NaN."""
    known = [value for value in values if not math.isnan(value)]
    fixed = 0.01 <= max(known, default=0.0) < 1e4
    return ["-" if math.isnan(v) else f"{v:.3f}" if fixed or v == 0 else f"{v:.1e}" for v in values]


def save_spectrum(outcome: Outcome, found: dict[str, Any], folder: Path) -> str:
    """Draw `spectrum.png` into the run folder, and say in one line why that failed."""
    return save_picture(folder / "spectrum.png", lambda: draw_spectrum(outcome, found))


def draw_spectrum(outcome: Outcome, found: dict[str, Any]) -> "Figure":
    """Draw the singular values at the end of every dynamics, with the threshold."""
    from matplotlib.figure import Figure

    from dyncollapse.plotting import plot_spectrum

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.add_subplot()
    for name, end in outcome.ends.items():
        sigma = end.singular_value.sort(-1, descending=True).values
        mean, spread = sigma.mean(0).cpu(), sigma.std(0, correction=0).cpu()
        plot_spectrum(ax, mean.numpy(), spread=spread.numpy(), label=name, marker="o", markersize=3)
    if outcome.simulation.objective.activation != "linear":
        ax.set(xlabel="embedding dimension", ylabel="standard deviation of the embedding")
    ax.axhline(found["verdict"]["threshold"], color="0.5", linestyle=":", label="counts as collapsed below")
    ax.legend(frameon=False)
    return figure
