"""Progress of long work on stderr: bars on a terminal, a line every ten seconds in a log."""

import threading
import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY = 10.0  # seconds between lines in a log


@contextmanager
def progress_bars(names: tuple[str, ...], every: float | None = None) -> Iterator[Callable[[str, float, float], None]]:
    """Show a bar per name on stderr, with the time left; in a log, a line every few seconds.

    Args:
        names: The parts of the work, in their order.
        every: Seconds between lines in a log; LOG_EVERY by default.

    Yields:
        `advance(name, done, total)`, to be called whenever progress was made.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        pace = _Pace(names[0])
        with _logged(console, pace.shares, every):
            yield pace.share
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks = {name: bars.add_task(name, total=1.0, start=False) for name in names}

        def advance(name: str, done: float, total: float) -> None:
            bars.start_task(tasks[name])
            bars.update(tasks[name], completed=done, total=total)

        yield advance


@contextmanager
def progress_line(unit: str = "points", every: float | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many units are done, their rate and the time left; in a log, a line every few seconds.

    Args:
        unit: What is counted, in the plural.
        every: Seconds between lines in a log; LOG_EVERY by default.

    Yields:
        `advance(done, total)`, to be called whenever progress was made.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    pace = _Pace(unit)
    if not console.is_terminal:
        with _logged(console, pace.counts, every):
            yield pace.note
        if pace.fresh and pace.done == pace.total:
            console.print(pace.counts(), soft_wrap=True)
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as bar:
        task = bar.add_task("starting")

        def advance(done: int, total: int) -> None:
            pace.note(done, total)
            bar.update(task, completed=done, total=total, description=pace.counts())

        yield advance


@contextmanager
def _logged(console: Console, line: Callable[[], str], every: float | None) -> Iterator[None]:
    """Print a line every few seconds, from a thread, since the work may report nothing for longer than that."""

    def report() -> None:
        with suppress(OSError, ValueError):  # stderr has been closed
            console.print(line(), soft_wrap=True)

    with called_every(LOG_EVERY if every is None else every, report):
        yield


@contextmanager
def called_every(seconds: float, report: Callable[[], object]) -> Iterator[None]:
    """Call a function every few seconds, from a thread, until the context ends; the first time after `seconds`.

    Args:
        seconds: Time between two calls.
        report: The function; it raises nothing.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            report()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Pace:
    """Progress of one piece of work: how much is done, and how long the rest takes at the pace so far."""

    def __init__(self, name: str) -> None:
        self.name, self.started = name, clock.monotonic()
        self.done = self.total = self.first = 0.0
        self.known = False

    def share(self, name: str, done: float, total: float) -> None:
        """Note how much of the work `name` is done; a new name starts a new pace."""
        if name != self.name:
            self.name, self.known = name, False
        self.note(done, total)

    def note(self, done: float, total: float) -> None:
        """Note how much is done."""
        if not self.known:  # work that was done before the first note says nothing about the pace
            self.first, self.started, self.known = done, clock.monotonic(), True
        self.done, self.total = done, total

    @property
    def fresh(self) -> float:
        """How much was done since the first note."""
        return self.done - self.first if self.known else 0.0

    def shares(self) -> str:
        """The share that is done and the time left, as a line."""
        seconds = clock.monotonic() - self.started
        if not (self.fresh and self.total):
            return f"{self.name}: under way for {duration(seconds)}"
        return f"{self.name}: {self.done / self.total:.0%}, about {duration(self._left(seconds))} left"

    def counts(self) -> str:
        """How many units are done, the rate and the time left, as a line."""
        seconds = clock.monotonic() - self.started
        if not self.known:
            return f"{self.name}: under way for {duration(seconds)}"
        text = f"{self.done:.0f} of {self.total:.0f} {self.name}"
        if self.fresh and seconds:
            text += f", {self.fresh / seconds:.2g} {self.name}/s"
            if self.done < self.total:
                text += f", {duration(self._left(seconds))} left"
        return text

    def _left(self, seconds: float) -> float:
        return (self.total - self.done) * seconds / self.fresh


YEAR = 365 * 86400.0


def duration(seconds: float) -> str:
    """A duration in words, to two digits.

    Args:
        seconds: The duration.

    Returns:
        A number with its unit.

    Examples:
        >>> duration(5400.0)
        '1.5 h'
    """
    if seconds > YEAR:
        return "more than a year"
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
