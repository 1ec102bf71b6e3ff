"""`python -m dyncollapse.bridge`: the commands of `dyncollapse bridge`, for torchrun."""

from functools import partial

from dyncollapse.commands.bridge import bridge
from dyncollapse.runtime.program import run_program

run_program(partial(bridge, prog_name="dyncollapse bridge"))
