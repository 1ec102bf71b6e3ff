"""The command line: parses, calls, prints; no mathematics."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from torch import Tensor

# Commands import what only they need: drawing and tables are not loaded for an error message.


class OneLineErrors(click.Group):
    """A group that reports misuse in one line and exits with 2, and leaves Ctrl-C as one word and 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line as click does, except for how errors are told."""
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):  # in a locale without them, ± and names of files are escaped
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            sys.exit(super().main(*args, **kwargs))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _fail(error.exit_code, error.format_message().replace("\n", " "))
        except click.exceptions.Abort:
            _fail(130, "Interrupted.")
        except OSError as error:  # click itself ends quietly where the reader of a pipe has gone
            _fail(1, f"standard output could not be written ({error.strerror})")


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
@click.option("--key", help="Name of the array, where files hold several; FILE:KEY names one of one file.")
@click.option("--views", metavar="one-sided|two-sided", help="Is FILE clean (one-sided)?  [two-sided: no]")
@click.option("--loss", metavar="infonce|dot|ntxent", help="Weigh negatives by this loss's softmax.  [all alike]")
@click.option("--temperature", type=float, help="Temperature of dot and ntxent.  [0.1]")
@click.option("--space", default="embedding", help="What to call the place FILE was taken from.  [embedding]")
@click.option(
    "--svd", is_flag=True, help="Take the tail from an SVD of the whole matrix, in float64, not a covariance."
)
@click.option("--fast", is_flag=True, help="Products in float32: about twice as fast, higher noise floor (reported).")
@click.option("--sample", type=int, default=4096, help="Rows kept for intervals and warnings.  [4096]")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of that choice of rows.  [0]", metavar="INTEGER"
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Save JSON, CSV, page and picture in this folder, new or empty."
)
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
        _fail(2, f"--{' and --'.join(asked)} cannot share stdout; choose one, or save all of them with --out")

    if options["views"] and not (positives or inputs):
        _fail(2, "--views says how other views were made, and there are none; give --positives, or leave it out")
    options["views"] = options["views"] or "two-sided"

    from dyncollapse import webpage
    from dyncollapse.monitor import diagnose as examine_all
    from dyncollapse.report import reserve_folder, versions
    from dyncollapse.terminal import print_embeddings, progress_bars

    config = {"file": str(file), "positives": [str(path) for path in positives], "key": key, **options}
    config |= {"inputs": inputs and str(inputs), "input_positives": input_positives and str(input_positives)}
    config["versions"] = versions()
    steps = ("embeddings", *(["inputs"] if inputs else []), *(["pairs"] if options["loss"] else []))
    folder = None
    try:
        with _bad_input("this does not fit into memory; leave out --svd or --loss, or give fewer rows"):
            rows, others = _array(file, key), [_array(path, key) for path in positives]
            options["inputs"] = inputs and _array(inputs, key)
            options["input_positives"] = input_positives and _array(input_positives, key)
            folder = None if out is None else reserve_folder(out)
            with progress_bars(steps) as progress:
                report = examine_all(rows, others or None, progress=progress, **options)
        contents = webpage.as_files(report, config, *asked) if folder is None else webpage.as_files(report, config)
        if folder is not None:
            _save_all(folder, contents)
    except KeyboardInterrupt:
        _fail(130, "Interrupted; nothing was saved.")
    finally:
        if folder is not None:
            with suppress(OSError):  # succeeds on an empty folder only: nothing was saved
                folder.rmdir()
    for form in asked:
        click.echo(contents[webpage.FILES[form]], nl=False)
    print_embeddings(report, str(file), to_stderr=bool(asked))
    if folder is not None:
        click.echo(f"Saved in {folder}/: {', '.join(contents)}", err=bool(asked))


def _array(path: Path, key: str | None) -> "Tensor":
    """FILE, or FILE:KEY for one array of a file that holds several."""
    from dyncollapse.readers import read_rows

    name, colon, own = str(path).rpartition(":")
    return read_rows(Path(name), own) if colon and not path.exists() else read_rows(path, key)


def _save_all(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all of these files, or none of them."""
    from dyncollapse.files import write_whole

    try:
        for name, content in contents.items():
            write_whole(folder / name, partial(Path.write_bytes, data=content))
    except BaseException as error:
        for name in contents:
            (folder / name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            _fail(1, f"{folder} could not be written ({error.strerror}); nothing was saved")
        raise


def _use_machine(name: str, threads: int) -> None:
    import torch

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        raise ValueError(f"--device is {name!r}; this machine offers {', '.join(offered)}")
    torch.set_num_threads(threads)


@contextmanager
def _bad_input(
    too_big: str = "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs",
) -> Iterator[None]:
    """Turn what is wrong with the user's settings into one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        _fail(2, str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _fail(2, too_big)


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"dyncollapse: {message}", err=True)
    sys.exit(code)
