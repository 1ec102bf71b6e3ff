"""How all of the bridge's commands end where something is wrong: one line and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

from dyncollapse.bridge.data.batches import LostWorker, lost_workers
from dyncollapse.commands.shared import bad_input, fail
from dyncollapse.runtime.files import CannotWrite

TOO_BIG = "this does not fit into memory; lower --batch-size"
NEEDED = ("timm", "torchvision", "sklearn")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn bad input, files that fail and what is missing of the extra `bridge` into one line and exit code 2."""
    try:
        with lost_workers(), bad_input(TOO_BIG):
            yield
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        fail(2, f"{error.name} is not installed; the bridge needs it: pip install 'dyncollapse[bridge]'")
    except LostWorker as error:
        fail(2, f"a process that reads images was killed ({error}); give fewer --workers")
    except CannotWrite as error:
        fail(1, f"{error.filename} could not be written ({error.strerror})")
    except OSError as error:
        fail(2, f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})")
