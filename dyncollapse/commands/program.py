"""The program `dyncollapse`, which `python -m dyncollapse` runs from a checkout that is not installed."""

from functools import partial

from dyncollapse.commands.main import main
from dyncollapse.runtime.program import run_program


def dyncollapse() -> None:
    """Run the command line of this process, and end the process."""
    run_program(partial(main, prog_name="dyncollapse"))
