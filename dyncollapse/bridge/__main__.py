"""`python -m dyncollapse.bridge`: the commands of `dyncollapse bridge`, for torchrun."""

from dyncollapse.commands.bridge import bridge

bridge(prog_name="dyncollapse bridge")
