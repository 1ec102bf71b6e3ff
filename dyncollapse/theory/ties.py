"""One order and one basis for modes that the loss alone does not tell apart.

Modes of equal gain fill the outputs in the order in which they grow from small starts, the fastest first; among those
of equal rate, the least augmented comes first.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

ROUND_OFF = 100  # of eigenvalues, in units of d eps times the largest


def equal_groups(values: Float[Tensor, " k"], scale: float = 0.0) -> list[list[int]]:
    """Index lists of sorted values that differ by round-off only.

    Args:
        values: Ascending or descending.
        scale: Size of the terms that the values are sums of, where that is above the largest value.

    Returns:
        Lists of places, in order.

    Examples:
        >>> equal_groups(torch.tensor([0.0, 1.0, 1.0 + 1e-7, 2.0]))
        [[0], [1, 2], [3]]
    """
    finite = values[torch.isfinite(values)].abs()
    largest = max(scale, float(finite.max()) if len(finite) else 0.0)
    tolerance = ROUND_OFF * len(values) * torch.finfo(values.dtype).eps * largest
    groups: list[list[int]] = []
    for k, value in enumerate(values.tolist()):
        last = float(values[k - 1])
        if groups and (value == last or abs(value - last) <= tolerance):
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def by_gain(gain: Float[Tensor, " k"], *ties: Float[Tensor, " k"]) -> list[int]:
    """Places of modes by descending gain.

    Args:
        gain: What a mode lowers the loss by, or anything that rises with it.
        *ties: What decides between modes whose gains, and all numbers before, are equal up to round-off: larger first.

    Returns:
        The order; what nothing decides stays in place.

    Examples:
        >>> by_gain(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.0, 5.0, 0.0]))
        [2, 1, 0]
    """
    order = gain.argsort(descending=True, stable=True)
    if not ties:
        return [int(k) for k in order]
    groups = [order[group] for group in equal_groups(gain[order])]
    return [int(group[k]) for group in groups for k in by_gain(*(values[group] for values in ties))]


def part_ties(
    columns: Float[Tensor, "d r"],
    values: Float[Tensor, " r"],
    keys: Sequence[tuple[Float[Tensor, "d d"], bool]],
    scale: float = 0.0,
) -> Float[Tensor, "d r"]:
    """Rotate columns of equal value among each other, so that further matrices are diagonal along them, and sort them.

    Args:
        columns: Eigenvectors U, in any metric.
        values: Their eigenvalues, sorted.
        keys: Symmetric matrices M, and whether u^T M u is to descend; each decides among what those before leave equal.
        scale: As for `equal_groups`.

    Returns:
        The columns.

    Examples:
        >>> larger_first = [(torch.diag(torch.tensor([1.0, 3.0])), True)]
        >>> part_ties(torch.eye(2), torch.ones(2), larger_first).abs().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    columns, groups = columns.clone(), equal_groups(values, scale)
    for matrix, descending in keys:
        finer = []
        for group in groups:
            if len(group) > 1:
                block = columns[:, group]
                found, turn = torch.linalg.eigh(block.T @ matrix @ block)
                found, turn = (found.flip(0), turn.flip(1)) if descending else (found, turn)
                columns[:, group] = block @ turn
                finer += [[group[k] for k in part] for part in equal_groups(found)]
            else:
                finer.append(group)
        groups = finer
    return columns
