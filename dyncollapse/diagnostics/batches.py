"""Join the batches that a list in a .pt file holds, by one rule."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from dyncollapse.formats.archives import check_growth
from dyncollapse.formats.arrays import FLOATS, Array, Listed
from dyncollapse.runtime.untrusted import Refused

ALL = "*"
LISTED = 8  # numbers of rows in a message


def joined_batches(path: Path, contents: Listed, key: str | None) -> Array | None:
    """Return the batches of a list as one array, if they are batches.

    They are if all elements are two-dimensional floating arrays of one width and format, or pairs with one such array
    as (z, labels), and if all have equally many rows, but for a last one with fewer. The key * joins the arrays of a
    list or tuple whatever their numbers of rows.

    Args:
        path: The file.
        contents: The elements of the list or tuple.
        key: "*", another key, or None.

    Returns:
        The batches, one after the other; None if an element is to be chosen instead.

    Raises:
        ValueError: `Refused`, for arrays that may be batches or views, and for a * that cannot be followed.
    """
    if key not in (None, ALL):
        return None
    arrays = list(contents.values())
    fitting = [array for array in arrays if array.kind in FLOATS and len(array.shape or ()) == 2]
    same = len({(array.kind, (array.shape or ())[1:]) for array in arrays}) == 1
    whole = bool(arrays) and len(fitting) == len(arrays) and same
    if key == ALL and not whole:
        raise Refused("has elements that are no batches: * joins two-dimensional arrays of one width and format")
    if not whole or (key is None and len(arrays) == 1):
        return None
    rows = [array.shape[0] for array in arrays if array.shape is not None]
    if key is None:
        _check_are_batches(rows, (arrays[0].shape or (0, 0))[1], contents)
    size = sum(getattr(torch, array.kind).itemsize * array.shape[0] * array.shape[1] for array in arrays if array.shape)
    check_growth(size, path.stat().st_size)
    return Array(arrays[0].kind, (sum(rows), (arrays[0].shape or (0, 0))[1]), partial(_load, arrays))


def _check_are_batches(rows: list[int], width: int, contents: Listed) -> None:
    """Refuse arrays that need not be batches, with what to do instead."""
    if len(set(rows)) == 1:
        raise Refused(
            f"holds {len(rows)} arrays of one shape, {(rows[0], width)}, which may be batches or views; "
            "join batches as FILE:*, or take views as FILE:0 with `positives` FILE:1"
        )
    if contents.ordered and all(a == b for a, b in pairwise(rows[:-1])) and rows[-1] < rows[0]:
        return
    shown = ", ".join(map(str, rows[:LISTED])) + (", ..." if len(rows) > LISTED else "")
    raise Refused(
        f"holds {len(rows)} arrays of {width} columns with {shown} rows, unlike batches, of which only the last has "
        "fewer; join them as FILE:*, or choose one as FILE:0"
    )


def _load(arrays: list[Array]) -> Tensor:
    return torch.cat([array.load() for array in arrays])
