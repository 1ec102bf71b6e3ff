"""What the commands show: progress bars, tables, and the picture of a run."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dyncollapse.claims import Checked
from dyncollapse.diagnosis import Verdict, moment
from dyncollapse.files import write_whole
from dyncollapse.population import POPULATION_FACTOR
from dyncollapse.simulation import Outcome, dimensions, time_per_step, verdict


@contextmanager
def progress_bars(names: tuple[str, ...]) -> Iterator[Callable[[str, float, float], None]]:
    """One bar per dynamics on stderr, with time left; silent where stderr is not a terminal."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks = {name: bars.add_task(name, total=1.0, start=False) for name in names}

        def advance(name: str, done: float, total: float) -> None:
            bars.start_task(tasks[name])
            bars.update(tasks[name], completed=done, total=total)

        yield advance


def print_outcome(outcome: Outcome, found: dict[str, Any], folder: Path, *, to_stderr: bool) -> None:
    """Print a row per dimension, the verdict and where things were saved; `found` is the JSON report."""
    judged = verdict(outcome)
    assert judged is not None
    ends = {name: dimensions(outcome.simulation, path) for name, path in outcome.trajectories.items()}
    first = next(iter(ends.values()))
    variances = [_column(values.mean(0).tolist()) for values in (first.data_var, first.aug_var, first.ratio)]
    linear = outcome.simulation.objective.activation == "linear"
    kind = ("mode", "data var", "aug var") if linear else ("dimension", "embedding var", "of it aug")
    table = _table(*kind, "rho", *ends, "collapsed?")
    for k, fate in enumerate(_fates(judged, time_per_step(outcome.simulation.configuration))):
        row = [f"{k + 1}", *(column[k] for column in variances)]
        for end in ends.values():
            values = end.singular_value[:, k]
            row.append(f"{float(values.mean()):.3g} ± {float(values.std(correction=0)):.1g}")
        table.add_row(*row, fate)
    console = _console(to_stderr)
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
    console.print(f"[bold]{judged.sentence}[/bold]", soft_wrap=True)
    console.print(f"Saved in {folder}/: run.json, {', '.join(f'{n}.npz' for n in ends)}, spectrum.png", soft_wrap=True)


def _fates(judged: Verdict, step: float) -> list[str]:
    told = []
    for fate, time in zip(judged.fates, judged.escapes, strict=True):
        escape = None if time is None else moment(time, step)
        end = "" if escape is None else " for ever" if escape == "never" else f" until {escape}"
        told.append("no" if fate == "alive" else fate + end)
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
    table = _table("claim", "source", "measured", "", "bound", "holds", "as expected", "seconds", left=2)
    for result in checked:
        claim, measured = result.claim, result.measured
        numbers = ("error", "", "")
        if measured is not None:
            numbers = (f"{measured.value:.3g}", measured.relation, f"{measured.bound:.3g}")
        verdicts = ("yes" if result.holds else "no", "NO" if result.surprising else "yes")
        style = "red" if result.surprising else None
        source = claim.source.split(" (")[0]
        table.add_row(claim.name, source, *numbers, *verdicts, f"{result.seconds:.1f}", style=style)
    console = _console(to_stderr)
    console.print(table)
    for result in checked:
        if result.error:
            console.print(f"{result.claim.name}: {result.error}", style="red", markup=False, soft_wrap=True)
    unexpected = sum(result.surprising for result in checked)
    failing = [result.claim.name for result in checked if not (result.holds or result.surprising)]
    console.print(
        f"[bold]{len(checked) - unexpected} of {len(checked)} claims behave as expected"
        + (f"; {', '.join(failing)} does not hold, as expected" if failing else "")
        + ".[/bold]",
        soft_wrap=True,
    )


def print_explanation(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print of each claim what it says, what is measured and why the bound is what it is."""
    console = _console(to_stderr)
    for result in checked:
        claim = result.claim
        console.print()
        texts = (claim.statement, f"Measured: {claim.quantity}. {claim.explanation}")
        for text in (f"{claim.name} ({claim.source})", *texts):
            console.print("\n".join(textwrap.wrap(text, 100)), markup=False)


def _table(*columns: str, left: int = 0) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def _console(to_stderr: bool) -> Console:
    return Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 120, highlight=False)


def _column(values: list[float]) -> list[str]:
    """Three decimals for all, unless the largest has too few or too many digits for that."""
    fixed = 0.01 <= max(values) < 1e4
    return [f"{value:.3f}" if fixed or value == 0 else f"{value:.1e}" for value in values]


def draw_spectrum(outcome: Outcome, found: dict[str, Any], folder: Path) -> None:
    """Draw the singular values at the end of every dynamics, with the threshold, into the run folder."""
    from matplotlib.figure import Figure

    from dyncollapse.plotting import plot_spectrum

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.add_subplot()
    for name, path in outcome.trajectories.items():
        sigma = dimensions(outcome.simulation, path).singular_value.sort(-1, descending=True).values
        mean, spread = sigma.mean(0).cpu(), sigma.std(0, correction=0).cpu()
        plot_spectrum(ax, mean.numpy(), spread=spread.numpy(), label=name, marker="o", markersize=3)
    if outcome.simulation.objective.activation != "linear":
        ax.set(xlabel="embedding dimension", ylabel="standard deviation of the embedding")
    ax.axhline(found["verdict"]["threshold"], color="0.5", linestyle=":", label="counts as collapsed below")
    ax.legend(frameon=False)
    write_whole(folder / "spectrum.png", lambda partial: figure.savefig(partial, format="png", dpi=150))
