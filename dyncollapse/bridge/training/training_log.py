"""The logs of a run, one JSON object per line; a resumed run continues them without gaps or repetitions."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from dyncollapse.bridge.training.schemas import LogLine, MonitorLine, PlottedMonitorLine
from dyncollapse.runtime.files import printable, write_bytes, writing
from dyncollapse.runtime.schemas import checked
from dyncollapse.runtime.untrusted import read_text

LOG, MONITOR = "log.jsonl", "monitor.jsonl"
MOST_BYTES = 2**28  # bytes of a log, enough for a million lines
ParsedT = TypeVar("ParsedT")


class _Board(Protocol):
    """The methods of TensorBoard's SummaryWriter that are used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class TrainingLog:
    """A log file; each line is written at once, so a killed run keeps all complete lines."""

    def __init__(self, path: Path) -> None:
        """Append to a file.

        Args:
            path: LOG or MONITOR in a run's folder; the file need not exist.
        """
        self.path = path
        self.board: _Board | None = None

    def mirror(self, folder: Path, step: int) -> None:
        """Also write every number for TensorBoard, if it is installed.

        Args:
            folder: TensorBoard's folder.
            step: TensorBoard's entries of later steps are dropped.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with suppress(OSError):
            self.board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, line: Mapping[str, object]) -> None:
        """Add a line, which has a `step`. Raises CannotWrite, an OSError, if that fails."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self.board is not None:
            try:
                self._show(self.board, line)
            except OSError:  # only a copy: the run itself fails if its own files cannot be written
                self.board = None

    def _show(self, board: _Board, line: Mapping[str, object]) -> None:
        step = line["step"]
        assert isinstance(step, int)
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                board.add_scalar(f"{self.path.stem}/{name}", value, step)

    def cut(self, step: int) -> None:
        """Drop the lines of steps after `step`, which will be taken again."""
        if self.path.exists():
            lines = _lines(self.path, _monitor_step if self.path.name == MONITOR else _log_step)
            write_bytes(self.path, "".join(f"{text}\n" for text, taken in lines if taken <= step).encode())

    def close(self) -> None:
        """Flush and close TensorBoard's files."""
        if self.board is not None:
            with suppress(OSError):  # only a copy of the log
                self.board.close()


def read_log(path: Path) -> list[LogLine]:
    """Read all complete lines of log.jsonl; a kill may have cut the last one.

    Args:
        path: The file, which need not exist.

    Returns:
        The lines, each with its step and loss.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file has another form. One line.
    """
    return [line for _, line in _lines(path, _log_line)]


def read_monitor(path: Path) -> list[MonitorLine]:
    """Read all complete lines of monitor.jsonl, as `read_log` does."""
    return [line for _, line in _lines(path, _monitor_line)]


def _lines(path: Path, parse: Callable[[str], ParsedT]) -> list[tuple[str, ParsedT]]:
    """The lines of a file, each as text and parsed."""
    texts = read_text(path, MOST_BYTES).splitlines() if path.exists() else []
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append((text, parse(text)))
        except json.JSONDecodeError as error:
            if number < len(texts):
                raise ValueError(f"{printable(str(path))} line {number} is no JSON ({error})") from None
        except RecursionError:
            raise ValueError(f"{printable(str(path))} line {number} is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"{printable(str(path))} line {number} is none of a run ({error})") from None
    return lines


def _log_line(text: str) -> LogLine:
    return checked(json.loads(text), LogLine)


def _log_step(text: str) -> int:
    return _log_line(text)["step"]


def _monitor_line(text: str) -> MonitorLine:
    values = json.loads(text)
    checked(values, PlottedMonitorLine)
    return checked(values, MonitorLine)


def _monitor_step(text: str) -> int:
    step = _monitor_line(text)["step"]
    assert isinstance(step, int)
    return step
