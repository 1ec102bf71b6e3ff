"""Check rows for NaN and infinity, mostly by one sum per block."""

from collections.abc import Sequence

import torch
from jaxtyping import Real
from torch import Tensor

BLOCK = 4096  # rows checked together
ADVICE = "(counted from 0); leave such rows out, or find out where they come from"


def nonfinite(rows: Real[Tensor, "n d"]) -> tuple[int, tuple[int, int] | None]:
    """Count numbers that are NaN or infinite.

    Args:
        rows: Numbers of any real format.

    Returns:
        Their number, and the row and column of the first; None if there are none.

    Examples:
        >>> nonfinite(torch.tensor([[1.0, 2.0], [float("nan"), float("inf")]]))
        (2, (1, 0))
    """
    count, first = 0, None
    for start in range(0, len(rows), BLOCK):
        bad = (~torch.isfinite(rows[start : start + BLOCK])).nonzero()
        if len(bad) and first is None:
            first = (start + int(bad[0, 0]), int(bad[0, 1]))
        count += len(bad)
    return count, first


@torch.no_grad()
def check_finite(views: Sequence[Real[Tensor, "n d"]], start: int = 0) -> None:
    """Check that rows are finite by their sum; single numbers are checked only if the sum is not finite.

    Args:
        views: Arrays of equal shape.
        start: Number of the first row, for messages.

    Raises:
        ValueError: One line that names the first bad row, its column and, of several arrays, the array.
    """
    sums = [view.sum(dtype=torch.promote_types(view.dtype, torch.float32)) for view in views if view.numel()]
    if not sums or bool(torch.isfinite(torch.stack(sums)).all()):
        return
    for number, view in enumerate(views, 1):
        _, first = nonfinite(view)
        if first is not None:
            of = f" of view {number}" if len(views) > 1 else ""
            raise ValueError(f"row {start + first[0]}{of} holds NaN or infinity, first in column {first[1]} {ADVICE}")
