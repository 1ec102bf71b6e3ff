"""`python -m dyncollapse.bridge`: the bridge's commands alone, for torchrun."""

from dyncollapse.commands.bridge import bridge

bridge(prog_name="dyncollapse bridge")
