"""The command line: parses, calls, prints; no mathematics."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

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

        from dyncollapse.report import reserve_folder, save
        from dyncollapse.simulation import build, run
        from dyncollapse.solver import FlowFailed
        from dyncollapse.terminal import draw_spectrum, print_outcome, progress_bars
        from dyncollapse.training import Diverged

        simulation = build(configuration)  # whatever can be refused is refused before a folder is made
        folder = reserve_folder(out)
        simulation = replace(simulation, configuration=replace(configuration, out=str(folder)))

    try:
        with _bad_input(), progress_bars(configuration.dynamics) as progress:
            outcome = run(simulation, progress, lambda so_far: save(so_far, folder))
        found = json.loads((folder / "run.json").read_text())  # saved with the last dynamics, not worked out again
        draw_spectrum(outcome, found, folder)
    except (Diverged, FlowFailed) as error:
        _fail(1, f"{error}. What was recorded until then is in {folder}/")
    except KeyboardInterrupt:
        _fail(130, f"Interrupted. What was recorded until then is in {folder}/")
    except OSError as error:
        _fail(1, f"{folder} could not be written ({error.strerror}); what was saved before is complete")
    finally:
        with suppress(OSError):  # succeeds on an empty folder only: nothing was recorded
            folder.rmdir()
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    print_outcome(outcome, found, folder, to_stderr=as_json)


@main.command()
@click.option(
    "--claim", "names", multiple=True, metavar="NAME", help="Check this claim only and explain it; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr.")
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Measure every lemma, theorem and corollary of the paper, and every statement beyond it.

    Each check returns a number and the bound it must respect. Theorem 2 as printed is wrong, so its check is
    expected to fail. Exit code 1 when any claim behaves unlike what is expected of it.
    """
    from dyncollapse.claims import CLAIMS, as_values, run_check
    from dyncollapse.terminal import print_claims, print_explanation, progress_bars

    known = {claim.name: claim for claim in CLAIMS}
    if unknown := [name for name in names if name not in known]:
        _fail(2, f"--claim is {', '.join(unknown)}; the claims are {', '.join(known)}")
    _use_machine("cpu", 1)  # the same bits everywhere, and small matrices gain nothing from more threads
    chosen, checked = [known[name] for name in dict.fromkeys(names)] or list(CLAIMS), []
    try:
        with progress_bars(("claims",)) as progress:
            for done, claim in enumerate(chosen, 1):
                checked.append(run_check(claim))
                progress("claims", done, len(chosen))
    except KeyboardInterrupt:
        print_claims(checked, to_stderr=True)
        _fail(130, f"Interrupted after {len(checked)} of {len(chosen)} claims.")
    if as_json:
        click.echo(json.dumps({"claims": [as_values(result) for result in checked]}, allow_nan=False))
    print_claims(checked, to_stderr=as_json)
    if names:
        print_explanation(checked, to_stderr=as_json)
    if surprising := [result for result in checked if result.surprising]:
        _fail(1, f"unlike expected: {', '.join(result.claim.name for result in surprising)}")


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
