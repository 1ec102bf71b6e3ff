"""The lines of a run, one JSON object each, which a resumed run continues without a gap or a repetition."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dyncollapse.runtime.files import printable, write_bytes, writing
from dyncollapse.runtime.schemas import LogLine, MonitorLine, Watched, checked
from dyncollapse.runtime.untrusted import read_text

MOST_BYTES = 2**28  # of a journal: a million lines


class Journal:
    """Lines of a file, written through at once: a killed run loses none that were finished."""

    def __init__(self, path: Path) -> None:
        """Append to the file, which need not be there."""
        self.path = path
        self.board: Any = None

    def mirror(self, folder: Path, step: int) -> None:
        """Show every number in TensorBoard, too, where it is installed; what it holds of later steps is dropped."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with suppress(OSError):
            self.board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line with its `step`. Raises CannotWrite, an OSError, where that fails."""
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        try:
            for name, value in line.items() if self.board is not None else ():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(f"{self.path.stem}/{name}", value, line["step"])
        except OSError:  # a copy for the eye only: the run ends where its own files cannot be written
            self.board = None

    def cut(self, step: int) -> None:
        """Drop the lines of steps after `step`, which will come again."""
        if self.path.exists():
            kept = [text for text, line in _lines(self.path) if line["step"] <= step]
            write_bytes(self.path, "".join(f"{text}\n" for text in kept).encode())

    def close(self) -> None:
        """Let TensorBoard write what it holds."""
        if self.board is not None:
            with suppress(OSError):  # TensorBoard shows what the journal has
                self.board.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal; the last one may be cut by a kill.

    Args:
        path: log.jsonl or monitor.jsonl of a run, which need not be there.

    Returns:
        The lines, each with its step.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: One line for a journal that holds anything else.
    """
    return [line for _, line in _lines(path)]


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    texts = read_text(path, MOST_BYTES).splitlines() if path.exists() else []
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append((text, _line(text, path.stem)))
        except json.JSONDecodeError as error:
            if number < len(texts):
                raise ValueError(f"{printable(str(path))} line {number} is no JSON ({error})") from None
        except RecursionError:
            raise ValueError(f"{printable(str(path))} line {number} is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"{printable(str(path))} line {number} is none of a run ({error})") from None
    return lines


def _line(text: str, journal: str) -> dict[str, Any]:
    values = json.loads(text)
    if journal != "monitor":
        return dict(checked(values, LogLine))
    checked(values, Watched)
    return checked(values, MonitorLine)
