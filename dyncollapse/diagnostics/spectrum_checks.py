"""Checks of spectra before a measure is computed from them, and the unit in which it is computed."""

import torch
from jaxtyping import Float
from torch import Tensor


def over_largest(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs k"]:
    """Check a spectrum and return it in units of its largest value.

    Autograd sees the unit as a constant, which is right for every measure here: none depends on scale.
    """
    values = checked(spectrum)
    return values / largest_of(values)


def checked(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs k"]:
    """Set negative round-off in a spectrum to 0, and refuse other negative values, NaN and zero spectra."""
    require_finite(spectrum, "values of the spectrum")
    largest = largest_of(spectrum).clamp(min=0)
    if (spectrum < -10 * round_off(spectrum) * largest).any():
        raise ValueError(f"the spectrum holds {float(spectrum.min()):.3g}: negative, and not by round-off")
    if (largest == 0).any():
        raise ValueError("the spectrum is zero: nothing varies, so no rank is defined")
    # Not clamp, which has no gradient at 0 itself: a participation ratio does.
    return torch.where(spectrum < 0, 0.0, spectrum)


def largest_of(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs one"]:
    """Return the largest value of each spectrum, which autograd sees as a constant."""
    return spectrum.detach().amax(-1, keepdim=True)


def round_off(spectrum: Float[Tensor, "*runs k"]) -> float:
    """Return the round-off in an eigenvalue of 0 of a k x k matrix, relative to the largest eigenvalue."""
    return spectrum.shape[-1] * torch.finfo(spectrum.dtype).eps


def require_matrix(values: Tensor, name: str) -> None:
    """Raise ValueError for a single number or row."""
    if values.ndim < 2:
        raise ValueError(f"the {name} have shape {tuple(values.shape)}; give a matrix")


def require_finite(values: Tensor, name: str) -> None:
    """Raise ValueError for no values, NaN and infinity."""
    if not values.numel():
        raise ValueError(f"there are no {name}: the shape is {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"the {name} hold NaN or infinity")
