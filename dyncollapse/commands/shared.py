"""How all commands fail, and what they print on stderr."""

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NoReturn

import click

from dyncollapse.commands.help_pages import GroupedCommand, HelpPage, commands_meant
from dyncollapse.runtime.files import CannotWrite, printable
from dyncollapse.runtime.process import stopped_as_by_ctrl_c
from dyncollapse.runtime.settings import SettingError, did_you_mean, option, renamed

UNKNOWN = (click.NoSuchOption, click.exceptions.NoSuchCommand)  # click would add names that are not very near


class OneLineErrors(HelpPage, click.Group):
    """A group that reports misuse in one line with exit code 2, and Ctrl-C in one word with exit code 130."""

    command_class = GroupedCommand

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line as click does, but report errors in one line."""
        kwargs["standalone_mode"] = False
        # Read when PyTorch is imported. Threads that spin while they wait for each other take the cores from other
        # processes and from each other: on a busy machine two threads were up to forty times slower than one.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        for stream in (sys.stdout, sys.stderr):  # escape what the terminal's encoding lacks, as ± in ASCII
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _notes_held():
            try:
                with stopped_as_by_ctrl_c(), _quiet_libraries(), _compiling_told():
                    sys.exit(super().main(*args, **kwargs))
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                sys.exit(error.exit_code)
            except click.UsageError as error:
                fail(error.exit_code, _misuse(error))
            except click.ClickException as error:
                fail(error.exit_code, " ".join(error.format_message().splitlines()))
            except click.exceptions.Abort:
                fail(130, "Interrupted.")
            except CannotWrite as error:
                fail(1, f"{error.filename} could not be written ({error.strerror})")
            except OSError as error:  # click itself exits quietly when the reader of a pipe is gone
                if error.filename is not None:
                    fail(2, f"{error.filename} cannot be used ({error.strerror}); name another, or make it accessible")
                _drop_output()
                fail(1, f"standard output could not be written ({error.strerror})")


def _drop_output() -> None:
    """Send what is left in the buffer of stdout nowhere; Python would write it when it ends, and fail again."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _misuse(error: click.UsageError) -> str:
    """What was wrong with a command line, and the command whose help shows what is right."""
    text = " ".join((error.message if isinstance(error, UNKNOWN) else error.format_message()).splitlines()).rstrip(".")
    if error.ctx is None:
        return text
    advice = f"{error.ctx.command_path} --help shows what it takes"
    if isinstance(error, click.NoSuchOption):
        known = [name for one in error.ctx.command.params for name in (*one.opts, *one.secondary_opts)]
        if error.option_name == "--resume" and "--out" in known:
            return f"{error.ctx.command_path} has no --resume; to continue, repeat the same command with its --out"
        advice = did_you_mean(error.option_name, known, advice)
    elif isinstance(error, click.exceptions.NoSuchCommand):
        root = error.ctx.find_root()
        if near := commands_meant(error.command_name, root.command):
            advice = f"did you mean {' or '.join(f'{root.command_path} {name}' for name in near)}?"
    elif isinstance(error, click.BadOptionUsage):
        text = _misused_option(error, error.ctx.command) or text
    elif isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        text, wanted = f"{error.param.opts[0]} is not given", (error.param.help or "").split(".  [")[0].rstrip(".")
        advice = f"it names this: {wanted}" if wanted else advice
    return f"{text}; {advice}"


def _misused_option(error: click.BadOptionUsage, command: click.Command) -> str | None:
    """What an option takes that was given without its value, or a switch with one; None for other options."""
    found = next((one for one in command.params if error.option_name in (*one.opts, *one.secondary_opts)), None)
    if not isinstance(found, click.Option):
        return None
    if found.is_flag:
        return f"{error.option_name} takes no value; write it alone"
    words = found.metavar or getattr(found.type, "words", "a path" if isinstance(found.type, click.Path) else "a name")
    return f"{error.option_name} has no value; it takes {words}"


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide warnings and logs that libraries write for programmers, unless -W or PYTHONWARNINGS asks for them.

    The filters stay as they are: a warning that is an error remains one.
    """
    shown, silent = warnings.showwarning, logging.NullHandler()
    before = {name: os.environ.get(name) for name in ("MPLBACKEND", "TORCH_CPP_LOG_LEVEL")}
    in_thread = threading.excepthook
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
    # TensorBoard's thread also raises a full disk in its caller, which reports it.
    threading.excepthook = lambda raised: None if isinstance(raised.exc_value, OSError) else in_thread(raised)
    logging.getLogger().addHandler(silent)  # without a handler, Python prints warnings of loggers
    os.environ["MPLBACKEND"] = "agg"  # with a notebook's backend, Matplotlib could not be imported
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


def use_machine(name: str, threads: int | None, workers: int = 0) -> None:
    """Set up this process: the threads of PyTorch and NumPy, and the C library's allocator.

    Args:
        name: The device, cpu, cuda or cuda:N.
        threads: CPU threads of single operations; None for this process's share of the usable cores, at most
            OMP_NUM_THREADS.
        workers: Worker processes that will run beside this one.

    Raises:
        SettingError: For a device that the machine does not have, and for more threads or workers than it can run.
    """
    # Here, because pages of help start without it.
    from dyncollapse.runtime.process import (
        check_count,
        check_device,
        default_threads,
        recycle_freed_memory,
        use_threads,
    )

    check_device(name, "" if _device_was_chosen() else " (the default)")
    check_count("threads", threads)
    check_count("workers", workers, least=0)
    use_threads(default_threads() if threads is None else threads)
    recycle_freed_memory()


def _device_was_chosen() -> bool:
    """Whether the running command has its device from an option, a file of settings or a run that it resumes."""
    context = click.get_current_context(silent=True)
    return context is None or any(context.params.get(name) for name in ("device", "config", "resume"))


def as_options(error: ValueError) -> str:
    """The text of an error, with parameters spelled as options and arguments of the running command.

    Args:
        error: Its text has names of parameters in backticks. Names of the command's parameters become its options and
            arguments; other names in a SettingError lose their backticks. Outside of a command, all names in a
            SettingError become options. A name that ends in "_" stands for all options that begin with it.

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
    """The longest name of an option, or the name of an argument as the help shows it."""
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


def one_form(wanted: Mapping[str, bool], advice: str = ": the folder has both") -> list[str]:
    """The form of the result that goes to stdout, if any; refuses several.

    Args:
        wanted: Whether each form was asked for, by the name of its option without dashes.
        advice: How to have several: the end of the message.

    Returns:
        At most one name.
    """
    forms = [form for form, asked in wanted.items() if asked]
    if len(forms) > 1:
        fail(2, f"--{' and --'.join(forms)} cannot share stdout; choose one{advice}")
    return forms


@contextmanager
def bad_input(
    too_big: str = "this simulation does not fit into memory; lower --dim, --batch-size, --pool or --runs",
) -> Iterator[None]:
    """Turn a ValueError or MemoryError into one line and exit code 2."""
    from dyncollapse.runtime.out_of_memory import out_of_memory_raised  # imports torch

    try:
        with out_of_memory_raised():
            yield
    except ValueError as error:
        fail(2, as_options(error))
    except MemoryError:
        fail(2, too_big)


class _Notes:
    """Lines for stderr, held back while the command may still refuse its input, because a refusal is one line.

    They are printed when the command prints anything else or ends, and after HELD_BACK seconds at the latest.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held: list[str] | None = None  # None when lines are printed at once
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
        click.echo(wrapped(printable(text), err=True), err=True)

    def release(self, *, dropped: bool = False) -> None:
        with self.lock:
            lines, self.held = self.held or [], None
            self.timer.cancel()
        with suppress(OSError, ValueError):  # stderr is closed
            for text in () if dropped else lines:
                click.echo(wrapped(printable(text), err=True), err=True)


HELD_BACK = 10.0
_NOTES = _Notes()


class _TellOfCompiling(logging.Handler):
    """Say once that the first use on a machine takes longer."""

    told = False

    def emit(self, _record: logging.LogRecord) -> None:
        """Print a line at the first function."""
        if not self.told:
            self.told = True
            say("Compiling functions for this machine, once: that takes half a minute to a minute in all", err=True)


@contextmanager
def _compiling_told() -> Iterator[None]:
    logger, handler = logging.getLogger("dyncollapse.runtime.compiled"), _TellOfCompiling()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _notes_held() -> Iterator[None]:
    _NOTES.hold()
    try:
        yield
    finally:
        _NOTES.release()


def note(text: str) -> None:
    """Print a line about the input on stderr, unless the input is refused afterwards."""
    _NOTES.add(text)


def fail(code: int, message: str) -> NoReturn:
    """Print one line on stderr that says what went wrong, and exit."""
    _NOTES.release(dropped=code == 2)
    click.echo(wrapped(printable(f"dyncollapse: {message}"), err=True), err=True)
    sys.exit(code)


def wrapped(text: str, *, err: bool) -> str:
    """A sentence, wrapped at words where it is printed on a terminal; a single line for files and pipes."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return text
    return fill(text, max(20, get_terminal_size().columns), break_long_words=False, break_on_hyphens=False)


def say(text: str, *, err: bool) -> None:
    """Print one line, such as a command to copy, with control codes in it escaped."""
    _NOTES.release()
    click.echo(printable(text), err=err)


def warn(message: str) -> None:
    """Print one line on stderr about a failure that changes no result."""
    _NOTES.release()
    click.echo(wrapped(f"dyncollapse: warning: {printable(message)}", err=True), err=True)


def say_saved(folder: Path, names: Iterable[str], *, to_stderr: bool) -> None:
    """Print the folder of the results and their names."""
    say(f"Saved in {folder}/: {', '.join(names)}", err=to_stderr)
