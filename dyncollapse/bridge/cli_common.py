"""What the bridge's commands share: how errors are told, and folders that are removed where nothing was saved."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from dyncollapse.cli_shared import bad_input, fail

TOO_BIG = "this does not fit into memory; lower --batch-size, or use --pipeline workers"
NEEDED = ("timm", "torchvision", "sklearn")
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn bad input, and what is missing of the extra `bridge`, into one line and exit code 2."""
    try:
        with bad_input(TOO_BIG):
            yield
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        fail(2, f"{error.name} is not installed; the bridge needs it: pip install 'dyncollapse[bridge]'")


def remove_empty(folder: Path) -> None:
    """Remove a run's folder in which nothing was saved."""
    (folder / ".lock").unlink(missing_ok=True)
    with suppress(OSError):  # succeeds on an empty folder only
        folder.rmdir()
