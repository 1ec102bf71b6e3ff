"""How far long work has come, on stderr: bars on a terminal, lines now and then in a log."""

import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY = 30.0  # seconds between lines in a log (ours)


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


@contextmanager
def progress_line(unit: str = "points") -> Iterator[Callable[[int, int], None]]:
    """How many of a unit are done, their rate and the time left: a bar on a terminal, elsewhere a line now and then."""
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TextColumn("{task.description}"))
    started = last = clock.monotonic()
    first: int | None = None
    ended = False
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting")

        def advance(done: int, total: int) -> None:
            nonlocal first, last, started, ended
            now = clock.monotonic()
            if first is None:  # what an earlier sweep has finished says nothing about this one's pace
                first, started, last = done, now, now
            text = _pace(unit, done, total, done - first, now - started)
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and not ended and (now - last > LOG_EVERY or done == total > first):
                console.print(text, soft_wrap=True)
                last, ended = now, done == total

        yield advance


def _pace(unit: str, done: int, total: int, fresh: int, seconds: float) -> str:
    text = f"{done} of {total} {unit}"
    if fresh and seconds:
        text += f", {fresh / seconds:.2g} {unit}/s"
        if done < total:
            text += f", {duration((total - done) * seconds / fresh)} left"
    return text


def duration(seconds: float) -> str:
    """A time as people say it, with two digits."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
