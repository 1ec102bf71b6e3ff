"""Spectra of embeddings and of the end-to-end product."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Real
from numpy.typing import NDArray
from scipy.linalg.lapack import dsterf, dsytrd, dsytrd_lwork
from torch import Tensor

from dyncollapse.diagnostics.conversion import Numbers, as_dtype, as_floats
from dyncollapse.diagnostics.spectrum_checks import require_matrix
from dyncollapse.model.precision import full_precision

# E[m^2] of a mantissa m that is log-uniform in [1, 2), as for data that span many powers of 2. Any law gives 1 to 4.
SQUARE_MANTISSA = 3 / (2 * math.log(2))
# Noise of variance q in every direction gives sample eigenvalues up to q (1 + sqrt(d/n))^2 (Marchenko and Pastur 1967).
QUANTISATION_MARGIN = 4
# Round-off of the sums in eps times the largest eigenvalue. Measured for d of 4 to 2048 and 16 to 2 000 000 rows, in
# batches of one row to all rows: up to 7 on flat and steep spectra of any rank, and up to 12 on a few repeated points,
# whose rounding errors are equal.
ROUNDINGS_OF_SUMS = 16


@full_precision
def covariance_spectrum(z: Real[Numbers, "*runs n m"]) -> Float[Tensor, "*runs m"]:
    """Return the eigenvalues of the embedding covariance C = (1/n) sum_i (z_i - mean)(z_i - mean)^T.

    They are squared singular values of the centred embeddings over n, so that small ones keep their digits and none is
    negative. Gradients flow through it.

    Args:
        z: Embeddings, a row per sample.

    Returns:
        The eigenvalues in descending order. If there are fewer samples than dimensions, the rest is exactly 0.

    Raises:
        ValueError: For fewer than two samples, NaN or infinity, and for what is no matrix.

    References:
        Jing et al. 2022, Eq. 1, arXiv 2110.09348.

    Examples:
        >>> z = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> covariance_spectrum(z)
        tensor([2.0000, 0.5000])
    """
    z = as_floats(z, "embeddings")
    require_matrix(z, "embeddings")
    n, m = z.shape[-2:]
    if n < 2:
        raise ValueError(f"the spectrum of {n} sample(s) is not defined; give at least 2")
    if not torch.isfinite(z).all():
        raise ValueError("the embeddings hold NaN or infinity; their spectrum is not defined")
    sigma = torch.linalg.svdvals(z - z.mean(dim=-2, keepdim=True))
    return torch.nn.functional.pad(sigma.square() / n, (0, m - sigma.shape[-1]))


def noise_floor(
    second_moments: Real[Numbers, " d"],
    largest: float,
    dtype: torch.dtype | np.dtype[Any] | type[np.generic],
    *,
    fast: bool = False,
) -> float:
    """Return the variance below which an eigenvalue of a covariance is rounding: the larger of two noises.

    Stored values: a number z = m 2^e, m in [1, 2), of a format with machine precision eps is off by up to half the
    spacing u = eps 2^e; uniformly, with variance u^2 / 12. For log-uniform m, independent of e,
    E[z^2] = E[m^2] E[2^(2e)] with E[m^2] = 3 / (2 ln 2), so rounding adds q_k = (ln 2 / 18) eps^2 E[z_k^2] to the
    variance of column k, and (eps t)^2 / 12 below the smallest normal number t, where the spacing stays eps t. If
    columns round independently, a unit vector v sees sum_k v_k^2 q_k <= max_k q_k. The floor is 4 times that, the
    largest factor by which the sampling of n >= d rows spreads it. Columns do not round independently if a single
    latent variable moves all of them by about the spacing: variances up to 4.5 floors were measured at d = 1024.

    Sums: 16 eps times the largest eigenvalue, with eps of float64, or of float32 if `fast`; and sqrt(d) eps of float64
    for the eigenvalue solver. Both were measured: LAPACK's solver without vectors is off by 6, 18 and 19 eps at
    d = 128, 512 and 1024.

    Args:
        second_moments: E[z_k^2] of every column, not centred.
        largest: Largest eigenvalue of the covariance.
        dtype: Coarsest format that the embeddings were stored in, of torch or NumPy; integers count as exact.
        fast: Whether products were computed in float32, as `Moments` does if `fast`.

    Returns:
        A variance, in squared units of the embeddings.

    Raises:
        ValueError: For anything but real numbers, and for a format that torch does not have.

    References:
        docs/explanation/diagnostics.md, section 3; Marchenko and Pastur 1967 (the factor 4).

    Examples:
        >>> f"{noise_floor(torch.ones(64), 1.0, torch.bfloat16):.0e}"
        '9e-06'
    """
    second_moments, dtype = as_floats(second_moments, "second moments"), as_dtype(dtype)
    stored = 0.0
    if dtype.is_floating_point:
        info = torch.finfo(dtype)
        squares = float(second_moments.max()) / SQUARE_MANTISSA + info.smallest_normal**2
        stored = QUANTISATION_MARGIN * info.eps**2 * squares / 12
    double = torch.finfo(torch.float64).eps
    summed = ROUNDINGS_OF_SUMS * (torch.finfo(torch.float32).eps if fast else double)
    return max(stored, largest * max(summed, len(second_moments) ** 0.5 * double))


@full_precision
def mode_singular_values(
    product: Real[Numbers, "*runs m d"], directions: Real[Numbers, "d d"], groups: list[list[int]]
) -> Float[Tensor, "*runs d"]:
    """Return the singular values of an end-to-end product P restricted to groups of input directions.

    The directions of a group share their data and augmentation variance, so no basis inside their span is special.
    A group of q directions gets the singular values of P @ directions[:, group], descending, with zeros beyond the rank
    of P.

    Args:
        product: P, which maps d inputs to m outputs, one per run.
        directions: Unit vectors as columns.
        groups: Numbers of the directions of each group, every direction in one group.

    Returns:
        One value per direction.

    Raises:
        ValueError: For anything but real numbers.

    Examples:
        >>> product = torch.diag(torch.tensor([3.0, 4.0, 1.0]))
        >>> mode_singular_values(product, torch.eye(3), [[0, 1], [2]])
        tensor([4., 3., 1.])
    """
    product, directions = as_floats(product, "entries of the product"), as_floats(directions, "directions")
    kind = torch.promote_types(product.dtype, directions.dtype)
    product, directions = product.to(kind), directions.to(kind)
    values = product.new_zeros(*product.shape[:-2], directions.shape[-1])
    for group in groups:
        sigma = torch.linalg.svdvals(product @ directions[:, group])
        values[..., group[: sigma.shape[-1]]] = sigma
    return values


def centred_and_not(
    covariance: Float[Tensor, "d d"], mean: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return the eigenvalues of a covariance C and of the second moment C + mean mean^T from one tridiagonal form.

    A reflection turns the mean into a multiple of the first unit vector e1. Householder's reduction Q^T C Q = T leaves
    e1 in place, so Q^T (C + mean mean^T) Q = T + |mean|^2 e1 e1^T is tridiagonal, too. Reducing C takes most of the
    time, and its eigenvectors would take three times as long again.

    Args:
        covariance: C, symmetric and positive semi-definite, in float64.
        mean: The mean.

    Returns:
        Both spectra, descending, with negative round-off as 0.
    """
    if covariance.device.type != "cpu":
        both = (covariance, covariance.addr(mean, mean))
        first, second = (torch.linalg.eigvalsh(one).flip(-1).clamp_min(0) for one in both)
        return first, second
    unit = float(covariance.diagonal().max()) or 1.0  # LAPACK's reduction does not scale, so squares could overflow
    matrix, length = covariance / unit, float(mean.norm())
    if length > 0:
        normal = mean / length
        normal[0] += 1.0 if normal[0] >= 0 else -1.0
        normal /= normal.norm()
        image = matrix @ normal
        image = 2 * (image - (normal @ image) * normal)
        matrix = matrix.addr_(normal, image, alpha=-1).addr_(image, normal, alpha=-1)
    work = int(dsytrd_lwork(len(mean), lower=1)[0])
    _, diagonal, beside, *_ = dsytrd(matrix.numpy().T, lower=1, lwork=work, overwrite_a=1)
    larger = max(unit, length**2)
    lengthened = diagonal * (unit / larger)
    lengthened[0] += length**2 / larger
    spectra = ((unit, diagonal, beside), (larger, lengthened, beside * (unit / larger)))
    first, second = (
        torch.from_numpy(scale * _values_of(middle, side)).flip(0).clamp_min(0) for scale, middle, side in spectra
    )
    return first, second


def _values_of(diagonal: NDArray[np.float64], beside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvalues of a symmetric tridiagonal matrix, ascending."""
    if len(diagonal) == 1:
        return diagonal  # LAPACK's wrapper takes no empty array beside it
    values, failed = dsterf(diagonal, beside)
    if failed:
        raise ValueError(f"{failed} eigenvalues of the covariance were not found; give the embeddings in other units")
    return values
