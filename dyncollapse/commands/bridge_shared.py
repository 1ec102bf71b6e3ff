"""How the bridge's commands fail: one line and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from dyncollapse.bridge.data.batches import LostWorker, lost_workers
from dyncollapse.commands.shared import as_options, bad_input, fail, note
from dyncollapse.runtime.extras import install
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.settings import NAMED, SettingError

TOO_BIG = "this does not fit into memory; lower --batch-size"
NEEDED = ("timm", "torchvision", "sklearn")


# Parameters of the bridge's functions, and the options of other names that set them.
OPTION_NAMES = {"renames": "prefix_map", "spaces": "space", "trust": "trust_checkpoint"}


def in_options(text: str) -> str:
    """A message of the bridge with its parameters, which stand in backticks, spelled as options."""
    return as_options(SettingError(_with_option_names(text)))


def _with_option_names(text: str) -> str:
    return NAMED.sub(lambda name: f"`{OPTION_NAMES.get(name[1], name[1])}`", text)


def note_in_options(text: str) -> None:
    """Print a message of the bridge on stderr, with its parameters spelled as options."""
    note(in_options(text))


@contextmanager
def refusals() -> Iterator[None]:
    """Turn bad input, unusable files and missing libraries of the extra `bridge` into one line and an exit code."""
    try:
        with lost_workers(), bad_input(TOO_BIG):
            try:
                yield
            except SettingError as error:
                raise SettingError(_with_option_names(error.text)) from None
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        fail(2, f"{error.name} is not installed; the bridge needs it: {install('bridge')}")
    except LostWorker as error:
        fail(2, f"a process that reads images was killed ({error}); give fewer --workers")
    except CannotWrite as error:
        fail(1, f"{error.filename} could not be written ({error.strerror})")
    except OSError as error:
        fail(2, f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})")
