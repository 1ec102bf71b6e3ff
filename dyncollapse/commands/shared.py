"""What the commands share: a simulation's settings as options, and how errors are told."""

import io
import logging
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import Field
from pathlib import Path
from typing import Any, NoReturn

import click

from dyncollapse.runtime.files import CannotWrite, printable
from dyncollapse.runtime.interrupts import stopped_as_by_ctrl_c
from dyncollapse.runtime.settings import Limits, SettingError, kinds_of, option, quoted, settings_of

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


class FiniteRange(click.FloatRange):
    """Numbers between two ends; NaN, which is neither below nor above them, is refused."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not finite", parameter, context)
        return number


# Ranges of options that are no setting of a record, as wide as those of the records' settings.
MOST = 10**3
THREADS, WORKERS, SEEDS = click.IntRange(1, MOST), click.IntRange(0, MOST), click.IntRange(0, 2**63 - 1)
BATCHES, EPOCHS, TEMPERATURES = click.IntRange(1, 10**9), click.IntRange(1, 10**6), FiniteRange(1e-15, 1e15)
# Names of a setting that its option still lists in place of NAME.
FEW = 4
# Settings of which a sweep has one value.
SINGLE = ("preset", "case", "bias", "dynamics", "threads")


def setting_options(record: type, lists: bool = False) -> Callable[[Command], Command]:
    """Give a command an option for each setting of a record.

    Args:
        record: Its fields say name, type and help.
        lists: Whether an option may have several values, which the command reads itself; those of SINGLE never do.

    Returns:
        The decorator.
    """

    def decorate(command: Command) -> Command:
        for field in reversed(settings_of(record)):
            if (limits := field.metadata["limits"]).text:
                kind = kinds_of(record)[field.name].type
                several = lists and field.name not in SINGLE
                command = _option(field.name, kind, limits, _help(field), several)(command)
        return command

    return decorate


def _help(field: Field[Any]) -> str:
    """What a setting is, and its default where that says anything and its words do not."""
    limits, default = field.metadata["limits"], field.default
    names = f" One of {', '.join(limits.allowed)}." if len(limits.allowed) > FEW else ""
    silent = default in (None, "") or isinstance(default, bool) or field.name == "preset" or "[" in limits.text
    value = ",".join(default) if isinstance(default, tuple) else default
    return limits.text + names + ("" if silent else f"  [{value:g}]" if value == 0 else f"  [{value}]")


def _option(name: str, kind: Any, limits: Limits, text: str, several: bool) -> Callable[[Command], Command]:
    if kind is bool:
        return click.option(f"{option(name)}/--no-{option(name)[2:]}", default=None, help=text)
    if kind is tuple:
        return click.option(option(name), help=text, callback=_names)
    names = None if not limits.allowed else "|".join(limits.allowed) if len(limits.allowed) <= FEW else "NAME"
    if several:
        words = kind.__name__.upper() if kind is not str else names or "text"
        return click.option(option(name), help=text, metavar=f"{words},..")
    return click.option(option(name), type=kind, metavar=names, help=text)


def use_machine(name: str, threads: int, workers: int = 0) -> None:
    """Set up this process: torch's threads and the C library's allocator.

    Raises:
        SettingError: For a device that is not there, and for counts beyond the machine.
    """
    import torch

    from dyncollapse.runtime.memory import recycle_freed_memory
    from dyncollapse.runtime.threads import check_count

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        raise SettingError(f"`device` is {quoted(name)}; this machine offers {', '.join(offered)}")
    check_count("threads", threads)
    check_count("workers", workers, least=0)
    torch.set_num_threads(threads)
    recycle_freed_memory()


@contextmanager
def bad_input(
    too_big: str = "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs",
) -> Iterator[None]:
    """Turn what is wrong with the user's settings into one line and exit code 2."""
    try:
        yield
    except SettingError as error:
        fail(2, error.as_options())
    except ValueError as error:
        fail(2, str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        fail(2, too_big)


def fail(code: int, message: str) -> NoReturn:
    """Say in one line what went wrong, and leave."""
    say(f"dyncollapse: {message}", err=True)
    sys.exit(code)


def say(text: str, *, err: bool) -> None:
    """Print one line, whatever the names in it hold: terminal codes are shown, not sent."""
    click.echo(printable(text), err=err)


def warn(message: str) -> None:
    """Say in one line what went wrong and changes no result."""
    click.echo(f"dyncollapse: warning: {printable(message)}", err=True)


def say_saved(folder: Path, names: Iterable[str], *, to_stderr: bool) -> None:
    """Say where results are, and which."""
    say(f"Saved in {folder}/: {', '.join(names)}", err=to_stderr)
