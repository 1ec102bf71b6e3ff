"""Labels as others number or name them, as labels from 0 on with a name each."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dyncollapse.bridge.data.image_sets import NO_CLASS


def numbered(
    parts: Sequence[Int[Tensor, " n"]], names: Sequence[str] | None
) -> tuple[list[Int[Tensor, " n"]], Sequence[str]]:
    """Number the classes of training and test images together.

    Args:
        parts: Whole numbers from 0 on, or -1 for images without a class.
        names: Names of the classes by these numbers; without them, classes are those that occur, in the order of their
            numbers, each with its number as name.

    Returns:
        The labels of each part, and the names of the classes.

    Raises:
        ValueError: For a number without a name. A clause.

    Examples:
        >>> numbered([torch.tensor([7, -1, 2]), torch.tensor([7])], None)
        ([tensor([ 1, -1,  0]), tensor([1])], ['2', '7'])
    """
    if names is not None:
        if (most := max((int(part.max()) for part in parts if len(part)), default=NO_CLASS)) >= len(names):
            raise ValueError(f"a label is {most}, and there are {len(names)} names of classes, from 0 on")
        return list(parts), names
    known = np.unique(np.concatenate([part.numpy() for part in parts]))
    known = known[known != NO_CLASS]
    labels = [
        torch.where(part == NO_CLASS, NO_CLASS, torch.from_numpy(np.searchsorted(known, part.numpy())))
        for part in parts
    ]
    return labels, [str(number) for number in known.tolist()]
