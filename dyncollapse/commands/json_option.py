"""The option --json, which every command has that prints a result."""

import click

AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)
