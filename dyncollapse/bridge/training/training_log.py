"""The logs of a run, one JSON object a line, which a resumed run continues without a gap or a repetition."""

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
MOST_BYTES = 2**28  # of a log: a million lines
ParsedT = TypeVar("ParsedT")


class _Board(Protocol):
    """What is used of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class TrainingLog:
    """A file to which lines are added, written through at once: a killed run loses none that were finished."""

    def __init__(self, path: Path) -> None:
        """Append to LOG or MONITOR in a run's folder; the file need not be there."""
        self.path = path
        self.board: _Board | None = None

    def mirror(self, folder: Path, step: int) -> None:
        """Show every number in TensorBoard, too, where it is installed; what it holds of later steps is dropped."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with suppress(OSError):
            self.board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, line: Mapping[str, object]) -> None:
        """Add a line with its `step`. Raises CannotWrite, an OSError, where that fails."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        if self.board is not None:
            try:
                self._show(self.board, line)
            except OSError:  # a copy for the eye only: the run ends where its own files cannot be written
                self.board = None

    def _show(self, board: _Board, line: Mapping[str, object]) -> None:
        step = line["step"]
        assert isinstance(step, int)
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                board.add_scalar(f"{self.path.stem}/{name}", value, step)

    def cut(self, step: int) -> None:
        """Drop the lines of steps after `step`, which will come again."""
        if self.path.exists():
            lines = _lines(self.path, _monitor_step if self.path.name == MONITOR else _log_step)
            write_bytes(self.path, "".join(f"{text}\n" for text, taken in lines if taken <= step).encode())

    def close(self) -> None:
        """Let TensorBoard write what it holds."""
        if self.board is not None:
            with suppress(OSError):  # TensorBoard shows what the log has
                self.board.close()


def read_log(path: Path) -> list[LogLine]:
    """All whole lines of log.jsonl; the last one may be cut by a kill.

    Args:
        path: The file, which need not be there.

    Returns:
        The lines, each with its step and loss.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: One line for a file that holds anything else.
    """
    return [line for _, line in _lines(path, _log_line)]


def read_monitor(path: Path) -> list[MonitorLine]:
    """All whole lines of monitor.jsonl, as `read_log`."""
    return [line for _, line in _lines(path, _monitor_line)]


def _lines(path: Path, parse: Callable[[str], ParsedT]) -> list[tuple[str, ParsedT]]:
    """The texts of a file's lines, and what each was parsed to."""
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
