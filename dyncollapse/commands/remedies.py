"""Remedies on the terminal, below the verdict."""

from collections.abc import Sequence

from rich.console import Console

from dyncollapse.commands.shared import as_options
from dyncollapse.diagnostics.remedies import WIDTH, Remedy, remedy_lines
from dyncollapse.runtime.settings import SettingError


def print_remedies(console: Console, remedies: Sequence[Remedy]) -> None:
    """Print what to try, and what would tell open causes apart, with the names of this command's options."""
    lines = remedy_lines(remedies, lambda text: as_options(SettingError(text)), min(WIDTH, console.width))
    if lines:
        console.print(*lines, sep="\n", soft_wrap=True)
