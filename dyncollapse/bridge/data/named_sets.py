"""Sets of images that have a name: scikit-learn's digits, and torchvision's CIFAR-10."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from dyncollapse.bridge.data.cache import PATIENCE, cache_folder
from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.data.splits import Data
from dyncollapse.runtime.files import first_line, printable, unmarked
from dyncollapse.runtime.settings import SettingError

DIGITS = "digits"
CIFAR = "cifar-10-batches-py"
CIFAR_NAME, CIFAR_SIZE = "cifar10", "170 MB"
# The last 500 of the 1797 digits are for testing. The set is ordered by writer, so these are by other people.
DIGITS_TEST = 500


def is_cifar(name: str) -> bool:
    """Whether a name means CIFAR-10 that is downloaded: no folder has that name."""
    return name == CIFAR_NAME and not os.path.isdir(name)


def downloaded_cifar(tell: Callable[[str], object]) -> Data:
    """CIFAR-10 from the cache; torchvision downloads it and checks its published checksum the first time."""
    from torchvision.datasets import CIFAR10

    folder = cache_folder() / CIFAR_NAME
    if not (folder / CIFAR).is_dir():
        tell(f"`data` {CIFAR_NAME}: downloading {CIFAR_SIZE} from {CIFAR10.url} into {unmarked(str(folder))}")
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Renamed when it is complete: no other process sees half of it.
            with TemporaryDirectory(dir=folder, prefix=".download-") as scratch, redirect_stdout(sys.stderr):
                CIFAR10(scratch, download=True)
                try:
                    os.rename(Path(scratch) / CIFAR, folder / CIFAR)
                except OSError:
                    if not (folder / CIFAR).is_dir():  # else another process was faster
                        raise
        except (OSError, RuntimeError, HTTPException, TarError, EOFError) as error:
            raise SettingError(
                f"`data` {CIFAR_NAME} is not in {unmarked(str(folder))} and cannot be downloaded "
                f"({unmarked(first_line(error))}); unpack {CIFAR10.url} there, or give a folder of images"
            ) from None
        finally:
            socket.setdefaulttimeout(patience)
    return replace(open_cifar(folder), title=CIFAR_NAME)


def open_cifar(folder: Path) -> Data:
    """CIFAR-10, read by torchvision, which checks the files' published checksums before it unpickles them."""
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(folder), train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{printable(str(folder / CIFAR))} is damaged or incomplete ({error}); get it again") from None
    train, test = (
        HeldImages(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), "CIFAR-10")
        for part in parts
    )
    return Data(train, test, parts[0].classes, str(folder))


def open_digits() -> Data:
    """scikit-learn's 1797 digits of 8 x 8 pixels, with values 0 to 16 scaled to 0 to 255."""
    pixels, labels = _digits()
    splits = slice(-DIGITS_TEST), slice(-DIGITS_TEST, None)
    parts = [HeldImages(pixels[split].clone(), labels[split].clone(), "digits") for split in splits]
    return Data(parts[0], parts[1], [str(digit) for digit in range(10)], DIGITS)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Pixels and labels, read once: scikit-learn parses the text of its file for a tenth of a second each time."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    return pixels, torch.from_numpy(digits.target).to(torch.int64)
