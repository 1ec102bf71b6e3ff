"""The command line: parses, calls, prints; no mathematics."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.commands.bridge import bridge
from dyncollapse.commands.shared import (
    OUT,
    SEEDS,
    TEMPERATURES,
    OneLineErrors,
    bad_input,
    fail,
    say_saved,
    setting_options,
    use_machine,
    warn,
)
from dyncollapse.commands.sweep import collect, sweep
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.process import uninterrupted
from dyncollapse.simulation.configuration import Configuration, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from dyncollapse.diagnostics.report import EmbeddingReport
    from dyncollapse.simulation.build import Simulation
    from dyncollapse.simulation.outcome import Outcome

LONG = 30.0  # seconds from which on a simulation says beforehand what it will take

# Commands import what only they need: drawing and tables are not loaded for an error message.


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dyncollapse")
def main() -> None:
    """Which dimensions of a contrastive embedding collapse, and why?"""


main.add_command(sweep)
main.add_command(collect)
main.add_command(bridge)


@main.command()
@setting_options(Configuration)
@click.option("--out", type=OUT, help="Run folder, new or empty.  [runs/simulate-NNNN]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr.")
def simulate(out: Path | None, as_json: bool, **given: Any) -> None:
    """Train toy networks by SGD, integrate their gradient flow from the same start, and compare.

    With no options: the paper's one-layer toy with augmentation beyond the collapse threshold.
    A --preset sets several options at once; options that you add change its sizes, never its loss or views.
    Variances are variances: the paper's threshold is --aug-strength 1. A run that was killed is continued by the same
    command.
    """
    with bad_input():
        configuration = resolve({name: value for name, value in given.items() if value is not None})
        use_machine(configuration.device, configuration.threads)

        from dyncollapse.commands.console import print_outcome, save_spectrum
        from dyncollapse.runtime.folders import claimed_folder
        from dyncollapse.simulation.build import build
        from dyncollapse.simulation.report import was_killed

        simulation = build(configuration)  # whatever can be refused is refused before a folder is made
        with claimed_folder(out, "simulate", partial(was_killed, configuration=configuration)) as folder:
            outcome, found = _simulate(simulation, folder)
            problem = save_spectrum(outcome, found, folder)
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
    print_outcome(outcome, found, to_stderr=as_json)
    names = ["run.json", *(f"{name}.npz" for name in outcome.trajectories), "spectrum.png"]
    if problem:
        warn(problem)
        names.pop()
    say_saved(folder, names, to_stderr=as_json)


def _simulate(simulation: "Simulation", folder: Path) -> tuple["Outcome", dict[str, Any]]:
    """Run it, or what a killed run has left of it, save each dynamics when it has ended; the outcome and its report."""
    from dataclasses import replace

    from dyncollapse.dynamics.solver import FlowFailed
    from dyncollapse.dynamics.training import Diverged
    from dyncollapse.runtime.folders import is_free
    from dyncollapse.runtime.progress import duration, progress_bars
    from dyncollapse.simulation.report import recorded, save
    from dyncollapse.simulation.run import run
    from dyncollapse.sweeps.estimate import expected_seconds

    configuration, saved = replace(simulation.configuration, out=str(folder)), dict[str, Any]()

    def keep(so_far: "Outcome") -> None:
        # To judge and save it may take seconds, and training may have taken hours.
        with uninterrupted("\nSaving what is there; Ctrl-C again ends without.\n"):
            saved.update(save(so_far, folder))

    def kept() -> str:
        return "Nothing was recorded." if is_free(folder) else f"What was recorded until then is in {folder}/"

    try:
        known = {} if is_free(folder) else recorded(folder)
        if known:
            click.echo(f"Going on with a run that was killed: {', '.join(known)} done", err=True)
        left = tuple(name for name in configuration.dynamics if name not in known)
        seconds = expected_seconds(replace(configuration, dynamics=left)) if left else 0.0
        if seconds > LONG:
            click.echo(f"This takes roughly {duration(seconds)}; Ctrl-C keeps what is done until then.", err=True)
        with progress_bars(left) as progress:
            return run(replace(simulation, configuration=configuration), progress, keep, known), saved
    except (Diverged, FlowFailed) as error:
        fail(1, f"{error}. {kept()}")
    except KeyboardInterrupt:
        fail(130, f"Interrupted. {kept()}")
    except CannotWrite as error:
        fail(1, f"{error.filename} could not be written ({error.strerror}). {kept()}")


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
    from dyncollapse.commands.console import print_claims, print_explanation
    from dyncollapse.runtime.progress import progress_bars

    known = {claim.name: claim for claim in CLAIMS}
    if unknown := [name for name in names if name not in known]:
        fail(2, f"--claim is {', '.join(unknown)}; the claims are {', '.join(known)}")
    use_machine("cpu", 1)  # the same bits everywhere, and small matrices gain nothing from more threads
    chosen, checked = [known[name] for name in dict.fromkeys(names)] or list(CLAIMS), []
    try:
        with progress_bars(("claims",)) as progress:
            for done, claim in enumerate(chosen, 1):
                checked.append(run_check(claim))
                progress("claims", done, len(chosen))
    except KeyboardInterrupt:
        print_claims(checked, to_stderr=True)
        fail(130, f"Interrupted after {len(checked)} of {len(chosen)} claims.")
    if as_json:
        click.echo(json.dumps({"claims": [as_values(result) for result in checked]}, allow_nan=False))
    print_claims(checked, to_stderr=as_json)
    if names:
        print_explanation(checked, to_stderr=as_json)
    if surprising := [result for result in checked if result.surprising]:
        fail(1, f"unlike expected: {', '.join(result.claim.name for result in surprising)}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--positives",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another view of the same samples, row by row; repeat for more views (LiDAR needs two or more of these).",
)
@click.option("--inputs", type=click.Path(path_type=Path), help="What the last linear layer made FILE from.")
@click.option("--input-positives", type=click.Path(path_type=Path), help="What it made the first --positives from.")
@click.option(
    "--input-dim",
    type=int,
    help="Number of units that the last linear layer reads, where --inputs are not at hand: no more can vary.",
)
@click.option("--key", help="Name of the array, where files hold several; FILE:KEY names one of one file.")
@click.option("--views", metavar="one-sided|two-sided", help="Is FILE clean (one-sided)?  [two-sided: no]")
@click.option("--loss", metavar="infonce|dot|ntxent", help="Weigh negatives by this loss's softmax.  [all alike]")
@click.option("--temperature", type=TEMPERATURES, help="Temperature of dot and ntxent.  [0.1]")
@click.option("--space", default="embedding", help="What to call the place FILE was taken from.  [embedding]")
@click.option(
    "--svd", is_flag=True, help="Take the tail from an SVD of the whole matrix, in float64, not a covariance."
)
@click.option("--fast", is_flag=True, help="Products in float32: about twice as fast, higher noise floor (reported).")
@click.option(
    "--sample", type=click.IntRange(2, 10**9), default=4096, help="Rows kept for intervals and warnings.  [4096]"
)
@click.option("--seed", type=SEEDS, default=0, help="Seed of that choice of rows.  [0]", metavar="INTEGER")
@click.option("--out", type=OUT, help="Save JSON, CSV, page and picture in this folder, new or empty.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per dimension on stdout, all else on stderr.")
@click.option("--html", "as_html", is_flag=True, help="Print one self-contained page on stdout, all else on stderr.")
def diagnose(
    file: Path,
    positives: tuple[Path, ...],
    inputs: Path | None,
    input_positives: Path | None,
    key: str | None,
    out: Path | None,
    as_json: bool,
    as_csv: bool,
    as_html: bool,
    **options: Any,
) -> None:
    """Say which dimensions of FILE's embeddings are collapsed, why, and how sure that is.

    FILE is .npy, .npz, .pt or .safetensors, one row per sample. Only with other views of the same samples
    (--positives) can the two mechanisms be told apart.
    """
    asked = [form for form, wanted in (("json", as_json), ("csv", as_csv), ("html", as_html)) if wanted]
    if len(asked) > 1:
        fail(2, f"--{' and --'.join(asked)} cannot share stdout; choose one, or save all of them with --out")

    if options["views"] and not (positives or inputs):
        fail(2, "--views says how other views were made, and there are none; give --positives, or leave it out")
    options["views"] = options["views"] or "two-sided"

    from dyncollapse.commands.console import print_embeddings
    from dyncollapse.diagnostics import exports as webpage
    from dyncollapse.diagnostics.monitor import diagnose as examine_all
    from dyncollapse.formats.mapped import unchanged
    from dyncollapse.runtime.files import write_bytes
    from dyncollapse.runtime.folders import whole_folder
    from dyncollapse.runtime.progress import progress_bars
    from dyncollapse.simulation.report import versions

    config = {"file": str(file), "positives": [str(path) for path in positives], "key": key, **options}
    config |= {"inputs": inputs and str(inputs), "input_positives": input_positives and str(input_positives)}
    config["versions"] = versions()
    sources = [_named(path)[0] for path in (file, *positives, inputs, input_positives) if path]
    steps = ("embeddings", *(["inputs"] if inputs else []), *(["pairs"] if options["loss"] else []))
    contents, problems, unsaved = dict[str, bytes](), list[str](), ""

    def examine() -> "EmbeddingReport":
        with unchanged(sources), progress_bars(steps) as progress:
            return examine_all(rows, others or None, progress=progress, **options)

    try:
        with bad_input("this does not fit into memory; leave out --svd or --loss, or give fewer rows"):
            rows, others = _array(file, key), [_array(path, key) for path in positives]
            options["inputs"] = inputs and _array(inputs, key)
            options["input_positives"] = input_positives and _array(input_positives, key)
            if out is None:
                report = examine()
                contents = webpage.as_files(report, config, *asked) if asked else {}
            else:
                with whole_folder(out, "diagnose") as (partial, _):
                    report = examine()
                    contents = webpage.as_files(report, config, tell=problems.append)
                    for name, content in contents.items():
                        write_bytes(partial / name, content)
    except KeyboardInterrupt:
        fail(130, "Interrupted; nothing was saved.")
    except CannotWrite as error:
        unsaved = f"{error.filename} could not be written ({error.strerror}); nothing was saved"
        if not contents:
            fail(1, unsaved)
    for form in asked:
        click.echo(contents[webpage.FILES[form]], nl=False)
    print_embeddings(report, str(file), to_stderr=bool(asked))
    for problem in problems:
        warn(problem)
    if unsaved:
        fail(1, unsaved)
    if out is not None:
        say_saved(out, contents, to_stderr=bool(asked))


def _array(path: Path, key: str | None) -> "Tensor":
    """FILE, or FILE:KEY for one array of a file that holds several."""
    from dyncollapse.diagnostics.readers import read_rows

    path, own = _named(path)
    return read_rows(path, key if own is None else own)


def _named(path: Path) -> tuple[Path, str | None]:
    """The file, and the array's name where there is one."""
    name, colon, own = str(path).rpartition(":")
    return (Path(name), own) if colon and not path.exists() else (path, None)
