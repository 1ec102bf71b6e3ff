"""What the commands share: a simulation's settings as options, and how errors are told."""

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from dyncollapse.files import CannotWrite, printable
from dyncollapse.interrupts import stopped_as_by_ctrl_c

Command = Callable[..., Any]


class _Target(click.Path):
    """Where results go: a path with a name, for an empty one would mean the folder in which the user is."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("it is empty; name a folder or file, or leave it out", parameter, context)
        return super().convert(value, parameter, context)


OUT = _Target(path_type=Path)


class OneLineErrors(click.Group):
    """A group that reports misuse in one line and exits with 2, and leaves Ctrl-C as one word and 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line as click does, except for how errors are told."""
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):  # in a locale without them, ± and names of files are escaped
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with stopped_as_by_ctrl_c(), _quiet_libraries():
                sys.exit(super().main(*args, **kwargs))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            fail(error.exit_code, " ".join(error.format_message().splitlines()))
        except click.exceptions.Abort:
            fail(130, "Interrupted.")
        except CannotWrite as error:
            fail(1, f"{error.filename} could not be written ({error.strerror})")
        except OSError as error:  # click itself ends quietly where the reader of a pipe has gone
            if error.filename is not None:
                fail(2, f"{error.filename} cannot be used ({error.strerror}); name another, or make it accessible")
            fail(1, f"standard output could not be written ({error.strerror})")


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep what libraries say for programmers off a user's terminal, unless -W or PYTHONWARNINGS asks for it.

    Filters stay as they are: where a warning is an error, it remains one.
    """
    shown, silent = warnings.showwarning, logging.NullHandler()
    before = {name: os.environ.get(name) for name in ("MPLBACKEND", "TORCH_CPP_LOG_LEVEL")}
    in_thread = threading.excepthook
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
    # A thread of TensorBoard's tells a full disk to its caller, too.
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else in_thread(told)
    logging.getLogger().addHandler(silent)  # or Python prints the warnings of loggers that nobody set up
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own would keep Matplotlib from being imported
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        yield
    finally:
        warnings.showwarning, threading.excepthook = shown, in_thread
        logging.getLogger().removeHandler(silent)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


# Every setting of a simulation as an option: its name, what click needs to know of it, its help.
SETTINGS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("--preset", {"metavar": "paper|authors-code"}, "Eq. 2 as the paper analyses it, or the loss its code trains."),
    ("--case", {"type": int}, "Which of the authors' two toy settings: 1 (strong augmentation) or 2 (deep)."),
    ("--aug-strength", {"type": float}, "Augmentation variance k on the last --aug-dim inputs.  [1.5]"),
    ("--dim", {"type": int}, "Input, hidden and embedding dimension.  [16]"),
    ("--aug-dim", {"type": int}, "Number of augmented inputs.  [half of --dim]"),
    ("--data-var", {"type": float}, "Data variance s of every input.  [0.5]"),
    ("--views", {"metavar": "one-sided|two-sided"}, "Which views are augmented.  [one-sided]"),
    ("--loss", {"metavar": "infonce|dot|ntxent|spectral"}, "Loss; infonce is the paper's Eq. 2.  [infonce]"),
    ("--temperature", {"type": float}, "Temperature of dot and ntxent.  [0.1]"),
    ("--depth", {"type": int}, "Number of layers.  [1]"),
    ("--activation", {"metavar": "linear|relu"}, "Between layers.  [linear]"),
    ("--bias/--no-bias", {"default": None}, "Give every layer a bias, started as torch's Linear.  [no]"),
    ("--init", {"metavar": "gaussian|uniform|spectrum"}, "Initialiser.  [gaussian]"),
    ("--init-scale", {"type": float}, "Gaussian: standard deviation [0.1; ntxent: 1]; others: factor [1]."),
    ("--init-rate", {"type": float}, "Spectrum: singular values exp(-rate k).  [0.35]"),
    ("--batch-size", {"type": int}, "Pairs in a batch, N.  [128]"),
    ("--pool", {"type": int}, "Samples per run to draw batches from; 0 draws fresh ones.  [10000]"),
    ("--lr", {"type": float}, "Learning rate; a step advances flow time by it.  [0.1]"),
    ("--steps", {"type": int}, "SGD steps.  [3000]"),
    ("--momentum", {"type": float}, "Heavy-ball momentum.  [0]"),
    ("--runs", {"type": int}, "Independent runs, all at once, from one seed.  [8]"),
    ("--seed", {"type": int}, "Seed of everything random.  [0]"),
    ("--dynamics", {"callback": _names}, "Any of sgd,flow,population.  [sgd,flow]"),
    ("--flow-batches", {"type": int}, "Fixed batches M that the flow's loss averages over.  [8]"),
    ("--device", {}, "cpu, cuda or cuda:N.  [cpu]"),
    ("--threads", {"type": int}, "CPU threads; more than one pays for many --runs only.  [1]"),
    ("--dtype", {"metavar": "float32|float64"}, "Of SGD; flows are always float64.  [float64]"),
)
# Settings of which a sweep has one value.
SINGLE = ("--preset", "--case", "--bias/--no-bias", "--dynamics", "--threads")


def settings(command: Command) -> Command:
    """Give a command an option for each setting of a simulation."""
    for name, keywords, text in reversed(SETTINGS):
        command = click.option(name, help=text, **keywords)(command)
    return command


def setting_lists(command: Command) -> Command:
    """Give a command the same options as text: of all but SINGLE there may be several values, which it reads itself."""
    for name, keywords, text in reversed(SETTINGS):
        if name not in SINGLE:
            kind = keywords.get("type")
            keywords = {"metavar": f"{kind.__name__.upper()},.." if kind else f"{keywords.get('metavar', 'text')},.."}
        command = click.option(name, help=text, **keywords)(command)
    return command


def use_machine(name: str, threads: int) -> None:
    """Set torch's threads. Raises ValueError for a device that is not there, and for threads beyond all reason."""
    import torch

    from dyncollapse.threads import check_count

    check_count("--threads", threads)

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        raise ValueError(f"--device is {name!r}; this machine offers {', '.join(offered)}")
    torch.set_num_threads(threads)


@contextmanager
def bad_input(
    too_big: str = "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs",
) -> Iterator[None]:
    """Turn what is wrong with the user's settings into one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        fail(2, str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        fail(2, too_big)


def fail(code: int, message: str) -> NoReturn:
    """Say in one line what went wrong, and leave."""
    click.echo(f"dyncollapse: {printable(message)}", err=True)
    sys.exit(code)


def warn(message: str) -> None:
    """Say in one line what went wrong and changes no result."""
    click.echo(f"dyncollapse: warning: {printable(message)}", err=True)


def say_saved(folder: Path, names: Iterable[str], *, to_stderr: bool) -> None:
    """Say where results are, and which."""
    click.echo(f"Saved in {printable(str(folder))}/: {', '.join(names)}", err=to_stderr)
