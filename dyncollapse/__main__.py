"""`python -m dyncollapse`: the command line from a checkout that is not installed."""

from dyncollapse.commands.main import main

main(prog_name="dyncollapse")
