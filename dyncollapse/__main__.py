"""`python -m dyncollapse`: the command line from a checkout that is not installed."""

from dyncollapse.commands.program import dyncollapse

dyncollapse()
