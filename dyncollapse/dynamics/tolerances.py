"""Absolute tolerances of a flow's solver, weight by weight, from the weights that it starts from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dyncollapse.model.networks import Weights

# Share of rtol that atol takes at most, for starts of any size.
LARGEST_SHARE = 1e-2
# Share of rtol that atol takes of a start's scale where the velocity jumps. Measured on two ReLU layers of 16 at rtol
# 1e-4: no more evaluations than for atol 1e-6; a tenth of this takes 1.9 times as many.
KINKED_SHARE = 1e-1
# Errors below this are not looked at, lest subnormal numbers, which have fewer digits, stop the solver.
SMALLEST_ATOL = 1e-300


def absolute_tolerances(
    weights: Weights, biases: Sequence[Tensor], rtol: float, atol: float | None, *, smooth: bool = True
) -> list[Tensor]:
    """Absolute tolerance of every weight and bias, in their shapes, float64.

    None: round-off of the scale that a weight starts at, which is the smaller of the largest |w| in its row and in its
    column, and of a bias the largest in its layer; 1e-2 rtol at most. So a start of any size escapes from zero when it
    should, beside others of other sizes, and modes that die are followed until they are 1e-16 of their start. A
    fixed tolerance would drown all starts below it. Weights in rows and columns of zeros take their run's smallest
    scale, and runs that are zero the scale 1.
    Where the velocity is not `smooth`, steps over its kinks err by far more than round-off, and it is 0.1 rtol of the
    scale.
    A number holds for every weight, but for the floor of 1e-300; 0 stands for errors relative to each weight.
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
