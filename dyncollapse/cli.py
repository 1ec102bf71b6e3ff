"""The command line: parses, calls, prints; no mathematics."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from dyncollapse.simulation import Outcome

# Commands import what only they need: drawing and tables are not loaded for an error message.


class OneLineErrors(click.Group):
    """A group that reports misuse in one line and exits with 2, and leaves Ctrl-C as one word and 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line as click does, except for how errors are told."""
        kwargs["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **kwargs))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _fail(error.exit_code, error.format_message().replace("\n", " "))
        except click.exceptions.Abort:
            _fail(130, "Interrupted.")


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dyncollapse")
def main() -> None:
    """Which dimensions of a contrastive embedding collapse, and why?"""


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


@main.command()
@click.option(
    "--preset", metavar="paper|authors-code", help="Eq. 2 as the paper analyses it, or the loss its code trains."
)
@click.option("--case", type=int, help="Which of the authors' two toy settings: 1 (strong augmentation) or 2 (deep).")
@click.option("--aug-strength", type=float, help="Augmentation variance k on the last --aug-dim inputs.  [1.5]")
@click.option("--dim", type=int, help="Input, hidden and embedding dimension.  [16]")
@click.option("--aug-dim", type=int, help="Number of augmented inputs.  [half of --dim]")
@click.option("--data-var", type=float, help="Data variance s of every input.  [0.5]")
@click.option("--views", metavar="one-sided|two-sided", help="Which views are augmented.  [one-sided]")
@click.option("--loss", metavar="infonce|dot|ntxent|spectral", help="Loss; infonce is the paper's Eq. 2.  [infonce]")
@click.option("--temperature", type=float, help="Temperature of dot and ntxent.  [0.1]")
@click.option("--depth", type=int, help="Number of layers.  [1]")
@click.option("--activation", metavar="linear|relu", help="Between layers.  [linear]")
@click.option("--bias/--no-bias", default=None, help="Give every layer a bias, started as torch's Linear.  [no]")
@click.option("--init", metavar="gaussian|uniform|spectrum", help="Initialiser.  [gaussian]")
@click.option("--init-scale", type=float, help="Gaussian: standard deviation [0.1; ntxent: 1]; others: factor [1].")
@click.option("--init-rate", type=float, help="Spectrum: singular values exp(-rate k).  [0.35]")
@click.option("--batch-size", type=int, help="Pairs in a batch, N.  [128]")
@click.option("--pool", type=int, help="Samples per run to draw batches from; 0 draws fresh ones.  [10000]")
@click.option("--lr", type=float, help="Learning rate; a step advances flow time by it.  [0.1]")
@click.option("--steps", type=int, help="SGD steps.  [3000]")
@click.option("--momentum", type=float, help="Heavy-ball momentum.  [0]")
@click.option("--runs", type=int, help="Independent runs, all at once, from one seed.  [8]")
@click.option("--seed", type=int, help="Seed of everything random.  [0]")
@click.option("--dynamics", callback=_names, help="Any of sgd,flow,population.  [sgd,flow]")
@click.option("--flow-batches", type=int, help="Fixed batches M that the flow's loss averages over.  [8]")
@click.option("--device", help="cpu, cuda or cuda:N.  [cpu]")
@click.option("--threads", type=int, help="CPU threads; more than one pays for many --runs only.  [1]")
@click.option("--dtype", metavar="float32|float64", help="Of SGD; flows are always float64.  [float64]")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, new or empty.  [runs/simulate-NNNN]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr.")
def simulate(out: Path | None, as_json: bool, **given: Any) -> None:
    """Train toy networks by SGD, integrate their gradient flow from the same start, and compare.

    With no options: the paper's one-layer toy with augmentation beyond the collapse threshold.
    A --preset sets several options at once; options that you add change its sizes, never its loss or views.
    Variances are variances: the paper's threshold is --aug-strength 1.
    """
    from dataclasses import replace

    from dyncollapse.configuration import resolve

    with _bad_input():
        configuration = resolve({name: value for name, value in given.items() if value is not None})
        _use_machine(configuration.device, configuration.threads)

        from dyncollapse import simulation as engine
        from dyncollapse.flow import FlowFailed
        from dyncollapse.training import Diverged

        simulation = engine.build(configuration)  # whatever can be refused is refused before a folder is made
        folder = engine.reserve_folder(out)
        simulation = replace(simulation, configuration=replace(configuration, out=str(folder)))

    try:
        with _bad_input(), _progress(configuration.dynamics) as progress:
            outcome = engine.run(simulation, progress, lambda so_far: engine.save(so_far, folder))
        _draw_spectrum(outcome, folder)
    except (Diverged, FlowFailed) as error:
        _fail(1, f"{error}. What was recorded until then is in {folder}/")
    except KeyboardInterrupt:
        _fail(130, f"Interrupted. What was recorded until then is in {folder}/")
    except OSError as error:
        _fail(1, f"{folder} could not be written ({error.strerror}); what was saved before is complete")
    finally:
        with suppress(OSError):  # succeeds on an empty folder only: nothing was recorded
            folder.rmdir()
    found = engine.report(outcome)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    _print_outcome(outcome, found["sgd_vs_flow"], folder, to_stderr=as_json)


def _use_machine(name: str, threads: int) -> None:
    import torch

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        raise ValueError(f"--device is {name!r}; this machine offers {', '.join(offered)}")
    torch.set_num_threads(threads)


@contextmanager
def _bad_input() -> Iterator[None]:
    """Turn what is wrong with the user's settings into one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        _fail(2, str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _fail(2, "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs")


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"dyncollapse: {message}", err=True)
    sys.exit(code)


@contextmanager
def _progress(names: tuple[str, ...]) -> Iterator[Callable[[str, float, float], None]]:
    """One bar per dynamics on stderr, with time left; silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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


def _print_outcome(
    outcome: "Outcome", distance: dict[str, float | None] | None, folder: Path, *, to_stderr: bool
) -> None:
    from rich.console import Console
    from rich.table import Table

    from dyncollapse import simulation as engine

    judged = engine.verdict(outcome)
    assert judged is not None
    ends = {name: engine.dimensions(outcome.simulation, path) for name, path in outcome.trajectories.items()}
    first = next(iter(ends.values()))
    variances = [_column(values.mean(0).tolist()) for values in (first.data_var, first.aug_var, first.ratio)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    linear = outcome.simulation.objective.activation == "linear"
    kind = ("mode", "data var", "aug var") if linear else ("dimension", "embedding var", "of it aug")
    for column in (*kind, "rho", *ends, "collapsed?"):
        table.add_column(column, justify="right", no_wrap=True)
    for k, (gone, mechanism) in enumerate(zip(judged.collapsed, judged.mechanisms, strict=True)):
        row = [f"{k + 1}", *(column[k] for column in variances)]
        for end in ends.values():
            values = end.singular_value[:, k]
            row.append(f"{float(values.mean()):.3g} ± {float(values.std(correction=0)):.1g}")
        table.add_row(*row, mechanism if gone else "no")
    console = Console(stderr=to_stderr, width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)
    if distance is not None and None not in distance.values():
        console.print(
            f"SGD and flow differ by {distance['relative_distance']:.2g} of the flow's norm at most, "
            f"{distance['at_end']:.2g} at the end."
        )
    console.print(f"[bold]{judged.sentence}[/bold]", soft_wrap=True)
    console.print(f"Saved in {folder}/: run.json, {', '.join(f'{n}.npz' for n in ends)}, spectrum.png", soft_wrap=True)


def _column(values: list[float]) -> list[str]:
    """Three decimals for all, unless the largest has too few or too many digits for that."""
    fixed = 0.01 <= max(values) < 1e4
    return [f"{value:.3f}" if fixed or value == 0 else f"{value:.1e}" for value in values]


def _draw_spectrum(outcome: "Outcome", folder: Path) -> None:
    from matplotlib.figure import Figure

    from dyncollapse import simulation as engine
    from dyncollapse.files import write_whole
    from dyncollapse.plotting import plot_spectrum

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.add_subplot()
    for name, path in outcome.trajectories.items():
        sigma = engine.dimensions(outcome.simulation, path).singular_value.sort(-1, descending=True).values
        mean, spread = sigma.mean(0).cpu(), sigma.std(0, correction=0).cpu()
        plot_spectrum(ax, mean.numpy(), spread=spread.numpy(), label=name, marker="o", markersize=3)
    judged = engine.verdict(outcome)
    assert judged is not None
    if outcome.simulation.objective.activation != "linear":
        ax.set(xlabel="embedding dimension", ylabel="standard deviation of the embedding")
    ax.axhline(judged.threshold, color="0.5", linestyle=":", label="counts as collapsed below")
    ax.legend(frameon=False)
    write_whole(folder / "spectrum.png", lambda partial: figure.savefig(partial, format="png", dpi=150))
