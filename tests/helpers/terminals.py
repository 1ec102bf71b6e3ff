"""Programs on a terminal of a given width."""

import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.forks import start
from helpers.waiting import PATIENCE


def shown_on_terminal(command: Sequence[str], folder: Path, columns: int) -> tuple[int, list[str]]:
    """The exit code of a Python command, and the lines that a terminal of so many columns gets from it, uncoloured."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    import fcntl

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "COLUMNS": "", "LINES": "", "TERM": "xterm", "NO_COLOR": "1"}
    process = start(command, folder, environment, stdout=theirs, stderr=theirs)
    try:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        os.close(ours)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).splitlines()
