"""Absolute tolerances of a flow's solver, weight by weight, from the weights that it starts from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dyncollapse.model.networks import Weights

# Largest atol over rtol, for starts of any size. A rule of thumb: for weights that have grown to order 1 the error is
# then still relative.
LARGEST_SHARE = 1e-2
# atol over rtol, per unit of a start's scale, where the velocity jumps. Measured on two ReLU layers of 16 at rtol 1e-4:
# no more evaluations than with atol 1e-6; a tenth of this share takes 1.9 times as many.
KINKED_SHARE = 1e-1
# Smaller errors are ignored: subnormal numbers have fewer digits and would stop the solver.
SMALLEST_ATOL = 1e-300


def absolute_tolerances(
    weights: Weights, biases: Sequence[Tensor], rtol: float, atol: float | None, *, smooth: bool = True
) -> list[Tensor]:
    """Absolute tolerance of every weight and bias, from the scale that it starts at.

    The scale of a weight is the smaller of two numbers: the largest |w| in its row, and in its column. The scale of a
    bias is the largest |b| in its layer. Rows and columns of zeros take the smallest scale in their run, and runs of
    zeros the scale 1. The tolerance is the round-off of the scale, and at most 1e-2 rtol. Starts of any size then
    escape from zero on time, and modes that die are followed down to 1e-16 of their start. One tolerance for all
    weights would hide every start below it.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        biases: One tensor (*runs, out) per layer, or none.
        rtol: The solver's relative tolerance.
        atol: One tolerance for every weight instead, at least 1e-300; 0 makes errors relative to each weight.
        smooth: Whether the velocity is smooth. If not, the error of a step over a kink is far above round-off, and the
            tolerance is 0.1 rtol of the scale.

    Returns:
        Float64 tensors in the shapes of weights, then biases.

    Examples:
        >>> (tolerance,) = absolute_tolerances((torch.eye(2),), (), rtol=1e-8, atol=None)
        >>> bool((tolerance == torch.finfo(torch.float64).eps).all())
        True
    """
    shapes = [p.shape for p in (*weights, *biases)]
    if atol is not None:
        value = max(atol, SMALLEST_ATOL)
        return [torch.full(shape, value, dtype=torch.float64, device=weights[0].device) for shape in shapes]
    # Each as (*runs, rows, columns); the missing scale of zeros is infinite until all are known.
    sizes = [p.detach().to(torch.float64).abs() for p in (*weights, *(b.unsqueeze(-1) for b in biases))]
    scales = [torch.minimum(_nonzero(s.amax(-1, keepdim=True)), _nonzero(s.amax(-2, keepdim=True))) for s in sizes]
    scales[len(weights) :] = [_nonzero(s.amax(-2, keepdim=True)).expand_as(s) for s in sizes[len(weights) :]]
    smallest = torch.stack([s.amin((-2, -1)) for s in scales]).amin(0)[..., None, None]
    smallest = smallest.where(smallest.isfinite(), 1.0)
    share = torch.finfo(torch.float64).eps if smooth else KINKED_SHARE * rtol
    return [
        (share * s.where(s.isfinite(), smallest)).clamp(SMALLEST_ATOL, LARGEST_SHARE * rtol).reshape(shape)
        for s, shape in zip(scales, shapes, strict=True)
    ]


def _nonzero(largest: Tensor) -> Tensor:
    return torch.where(largest > 0, largest, torch.inf)
