"""What the bridge's commands share: how errors are told."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from dyncollapse.commands.shared import bad_input, fail, say
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.settings import NAMED, SettingError

TOO_BIG = "this does not fit into memory; lower --batch-size"
NEEDED = ("timm", "torchvision", "sklearn")
# Parameters of the bridge's functions whose options have other names.
OPTION_NAMES = {"renames": "prefix_map", "spaces": "space", "trust": "trust_checkpoint"}
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)


def in_options(text: str) -> str:
    """A sentence of the bridge as the command line says it: its parameters, in backticks, as options."""
    return SettingError(_with_option_names(text)).as_options()


def _with_option_names(text: str) -> str:
    return NAMED.sub(lambda name: f"`{OPTION_NAMES.get(name[1], name[1])}`", text)


def tell(text: str) -> None:
    """Say on stderr what the bridge reports on its way."""
    say(in_options(text), err=True)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn bad input, files that fail and what is missing of the extra `bridge` into one line and exit code 2."""
    try:
        with bad_input(TOO_BIG):
            try:
                yield
            except SettingError as error:
                raise SettingError(_with_option_names(error.text)) from None
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        fail(2, f"{error.name} is not installed; the bridge needs it: pip install 'dyncollapse[bridge]'")
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        fail(2, f"a process that reads images was killed ({str(error).splitlines()[0]}); give fewer --workers")
    except CannotWrite as error:
        fail(1, f"{error.filename} could not be written ({error.strerror})")
    except OSError as error:
        fail(2, f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})")
