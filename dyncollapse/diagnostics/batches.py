"""Join the batches that a list in a .pt file holds, by one rule."""

import math
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


def joined_batches(path: Path, contents: Listed, key: str | None, axes: int = 2) -> Array | None:
    """Return the batches of a list as one array, if they are batches.

    They are if all elements are two-dimensional floating arrays of one width and format, or pairs with one such array
    as (z, labels), and if all have equally many rows, but for a last one with fewer. The key * joins the arrays of a
    list or tuple whatever their numbers of rows.

    Args:
        path: The file.
        contents: The elements of the list or tuple.
        key: "*", another key, or None.
        axes: Number of axes of a batch: 2, or 3 for tokens.

    Returns:
        The batches, one after the other; None if an element is to be chosen instead.

    Raises:
        ValueError: `Refused`, for arrays that may be batches or views, and for a * that cannot be followed.
    """
    if key not in (None, ALL):
        return None
    arrays = list(contents.values())
    fitting = [array for array in arrays if array.kind in FLOATS and len(array.shape or ()) == axes]
    same = len({(array.kind, (array.shape or ())[1:]) for array in arrays}) == 1
    whole = bool(arrays) and len(fitting) == len(arrays) and same
    if key == ALL and not whole:
        raise Refused("has elements that are no batches: * joins two-dimensional arrays of one width and format")
    if not whole or (key is None and len(arrays) == 1):
        return None
    rows, rest = [(array.shape or (0,))[0] for array in arrays], (arrays[0].shape or ())[1:]
    if key is None:
        _check_are_batches(rows, rest, contents)
    check_growth(getattr(torch, arrays[0].kind).itemsize * sum(rows) * math.prod(rest), path.stat().st_size)
    return Array(arrays[0].kind, (sum(rows), *rest), partial(_load, arrays))


def _check_are_batches(rows: list[int], rest: tuple[int, ...], contents: Listed) -> None:
    """Refuse arrays that need not be batches, with what to do instead."""
    if len(set(rows)) == 1:
        raise Refused(
            f"holds {len(rows)} arrays of one shape, {(rows[0], *rest)}, which may be batches or views; "
            "join batches as FILE:*, or take views as FILE:0 with `positives` FILE:1"
        )
    if contents.ordered and all(a == b for a, b in pairwise(rows[:-1])) and rows[-1] < rows[0]:
        return
    shown = ", ".join(map(str, rows[:LISTED])) + (", ..." if len(rows) > LISTED else "")
    raise Refused(
        f"holds {len(rows)} arrays of {rest[-1]} columns with {shown} rows, unlike batches, of which only the last has "
        "fewer; join them as FILE:*, or choose one as FILE:0"
    )


def _load(arrays: list[Array]) -> Tensor:
    return torch.cat([array.load() for array in arrays])
