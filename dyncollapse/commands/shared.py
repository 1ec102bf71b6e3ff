"""What the commands share: settings as options, pages of help, and how errors are told."""

import io
import logging
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dyncollapse.commands.help_pages import GroupedCommand, grouped_option, write_example
from dyncollapse.runtime.files import CannotWrite, printable
from dyncollapse.runtime.process import stopped_as_by_ctrl_c
from dyncollapse.runtime.records import (
    MOST_EPOCHS,
    MOST_WORKERS,
    REQUIRED,
    Setting,
    settings_of,
)
from dyncollapse.runtime.settings import SettingError, option, quoted, renamed

Command = Callable[..., Any]
RecordT = TypeVar("RecordT")


class _Target(click.Path):
    """Where results go: a path with a name, for an empty one would mean the folder in which the user is."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("it is empty; name a folder or file, or leave it out", parameter, context)
        return super().convert(value, parameter, context)


OUT = _Target(path_type=Path)


class OneLineErrors(click.Group):
    """A group that reports misuse in one line and exits with 2, and leaves Ctrl-C as one word and 130."""

    command_class = GroupedCommand

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write an example of one of its commands."""
        write_example(ctx, formatter)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line as click does, except for how errors are told."""
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):  # in a locale without them, ± and names of files are escaped
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _notes_held():
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
THREADS, EPOCHS = click.IntRange(1, MOST_WORKERS), click.IntRange(1, MOST_EPOCHS)
# Names of a setting that its option still lists in place of NAME.
FEW = 4
# Settings of which a sweep has one value.
SINGLE = ("preset", "case", "bias", "dynamics", "threads")


def setting_options(
    record: type, *, lists: bool = False, only: Iterable[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command an option for each setting of a record. What is not given arrives as None: see `taken`.

    Args:
        record: Its fields say name, type, unit, default, group and help.
        lists: Whether an option may have several values, which the command reads itself; those of SINGLE never do.
        only: Names of the settings that the command has, where it has not all of them.

    Returns:
        The decorator.
    """
    known = settings_of(record)
    chosen = [known[name] for name in (known if only is None else only)]

    def decorate(command: Command) -> Command:
        for setting in reversed(chosen):
            if setting.text:
                command = _option(setting, lists and setting.name not in SINGLE)(command)
        return command

    return decorate


def record_options(
    record: type, name: str = "options", *, only: Iterable[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options of a record's settings, and the record that is made of them as an argument.

    Args:
        record: As for `setting_options`.
        name: The argument.
        only: As for `setting_options`; the record has its defaults for the others.

    Returns:
        The decorator.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def packed(**given: Any) -> Any:
            with bad_input():
                made: Any = taken(record, given)
            return command(**{name: made}, **given)

        return setting_options(record, only=only)(packed)

    return decorate


def taken(record: type[RecordT], given: dict[str, Any]) -> RecordT:
    """Make a record of what a command was given by the options of `setting_options`.

    Args:
        record: The same class.
        given: The command's values by name; the record's settings are taken out of it.

    Returns:
        The record, with its defaults for what is None.

    Raises:
        SettingError: For the first value that it refuses.
    """
    values = {name: given.pop(name) for name in settings_of(record) if name in given}  # type: ignore[arg-type]
    return record(**{name: value for name, value in values.items() if value is not None})


def _option(setting: Setting, several: bool) -> Callable[[Command], Command]:
    add = partial(grouped_option, group=setting.group, help=_help(setting))
    name, choices = option(setting.name), setting.choices
    if setting.type is bool:
        return add(f"{name}/--no-{name[2:]}", default=None)
    if setting.type is tuple and not setting.repeat:
        return add(name, callback=_names)
    names = None if not choices else "|".join(choices) if len(choices) <= FEW else "NAME"
    metavar = setting.metavar or names
    if setting.repeat:
        return add(name, multiple=True, metavar=metavar)
    if several:
        words = metavar or {int: "INTEGER", float: "FLOAT", str: "TEXT"}[setting.type]
        return add(name, metavar=f"{words},..")
    kind: Any = click.Path(path_type=Path) if setting.type is Path else setting.type
    return add(name, type=kind, metavar=metavar, required=setting.default is REQUIRED)


def _help(setting: Setting) -> str:
    """What a setting is, its names where the option does not list them, and what it is where none is given."""
    names = f" One of {', '.join(setting.choices)}." if len(setting.choices) > FEW else ""
    shown = setting.standard if setting.default is not REQUIRED else ""  # click itself adds [required]
    standard = f"  [{shown}]" if shown else ""
    return renamed(setting.text + names + standard, option)


def use_machine(name: str, threads: int, workers: int = 0) -> None:
    """Set up this process: torch's threads and the C library's allocator.

    Raises:
        SettingError: For a device that is not there, and for counts beyond the machine.
    """
    import torch  # here, for pages of help do without

    from dyncollapse.runtime.process import check_count, recycle_freed_memory

    offered = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    offered += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in offered:
        raise SettingError(f"`device` is {quoted(name)}; this machine offers {', '.join(offered)}")
    check_count("threads", threads)
    check_count("workers", workers, least=0)
    torch.set_num_threads(threads)
    recycle_freed_memory()


def as_options(error: ValueError) -> str:
    """What an error says, with parameters named as the running command's user knows them.

    Args:
        error: Its text holds names in backticks. Those of the command's parameters become its options and arguments.
            Other names of a SettingError lose their backticks, and outside of a command they all become options. A
            name that ends in "_" stands for all that begin with it.

    Returns:
        The line.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return error.as_options() if isinstance(error, SettingError) else str(error)
    known = {str(one.name): _spelled(one) for one in context.command.params}

    def spell(name: str) -> str:
        if name.endswith("_") and any(one.startswith(name) for one in known):
            return option(name)
        return known.get(name, name if isinstance(error, SettingError) else f"`{name}`")

    return renamed(error.text if isinstance(error, SettingError) else str(error), spell)


def _spelled(parameter: click.Parameter) -> str:
    """The option's long name, or what stands for the argument in the help."""
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


@contextmanager
def bad_input(
    too_big: str = "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs",
) -> Iterator[None]:
    """Turn what is wrong with the user's settings into one line and exit code 2."""
    from dyncollapse.runtime.out_of_memory import out_of_memory_raised  # imports torch: pages of help do without

    try:
        with out_of_memory_raised():
            yield
    except ValueError as error:
        fail(2, as_options(error))
    except MemoryError:
        fail(2, too_big)


class _Notes:
    """Lines for stderr, held back while a command may still refuse its input: a refusal is one line.

    They are printed once the command prints anything else, ends or has run for HELD_BACK seconds, when lines on its
    progress come, too.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: list[str] | None = None  # None: nothing is held back
        self.timer = threading.Timer(HELD_BACK, self.release)

    def hold(self) -> None:
        self.held = []

    def add(self, text: str) -> None:
        with self.lock:
            if self.held is not None:
                if not self.held:
                    self.timer = threading.Timer(HELD_BACK, self.release)
                    self.timer.daemon = True
                    self.timer.start()
                self.held.append(text)
                return
        click.echo(printable(text), err=True)

    def release(self, *, dropped: bool = False) -> None:
        with self.lock:
            lines, self.held = self.held or [], None
            self.timer.cancel()
        with suppress(OSError, ValueError):  # nobody reads stderr any more
            for text in () if dropped else lines:
                click.echo(printable(text), err=True)


HELD_BACK = 10.0
_NOTES = _Notes()


@contextmanager
def _notes_held() -> Iterator[None]:
    _NOTES.hold()
    try:
        yield
    finally:
        _NOTES.release()


def note(text: str) -> None:
    """Say something about the input on stderr, which a refusal of it leaves out."""
    _NOTES.add(text)


def fail(code: int, message: str) -> NoReturn:
    """Say in one line what went wrong, and leave."""
    _NOTES.release(dropped=code == 2)
    say(f"dyncollapse: {message}", err=True)
    sys.exit(code)


def say(text: str, *, err: bool) -> None:
    """Print one line, whatever the names in it hold: terminal codes are shown, not sent."""
    _NOTES.release()
    click.echo(printable(text), err=err)


def warn(message: str) -> None:
    """Say in one line what went wrong and changes no result."""
    _NOTES.release()
    click.echo(f"dyncollapse: warning: {printable(message)}", err=True)


def say_saved(folder: Path, names: Iterable[str], *, to_stderr: bool) -> None:
    """Say where results are, and which."""
    say(f"Saved in {folder}/: {', '.join(names)}", err=to_stderr)
