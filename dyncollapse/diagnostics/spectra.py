"""Spectra of embeddings and of the end-to-end product."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.precision import full_precision

# E[m^2] of a mantissa m that is log-uniform in [1, 2), as over the binades that data span; between 1 and 4 for any.
SQUARE_MANTISSA = 3 / (2 * math.log(2))
# Noise of variance q in every direction gives sample eigenvalues up to q (1 + sqrt(d/n))^2 (Marchenko and Pastur 1967).
QUANTISATION_MARGIN = 4
# Ours, in eps times the largest eigenvalue. Measured for d of 4 to 2048 and 16 to 2 000 000 rows, in batches of one to
# all: up to 7 on flat and steep spectra of any rank, up to 12 on a few points repeated, whose rounding errors agree.
ROUNDINGS_OF_SUMS = 16


@full_precision
def covariance_spectrum(z: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs m"]:
    """Eigenvalues, descending, of the embedding covariance C = (1/n) sum_i (z_i - mean)(z_i - mean)^T (Eq. 1).

    Computed as squared singular values of the centred embeddings over n, so that small ones keep their digits
    and none is negative; dimensions beyond the number of samples are exactly 0.
    Raises ValueError for fewer than two samples or for NaN or infinite entries.
    """
    n, m = z.shape[-2:]
    if n < 2:
        raise ValueError(f"the spectrum of {n} sample(s) is not defined; give at least 2")
    if not torch.isfinite(z).all():
        raise ValueError("the embeddings hold NaN or infinity; their spectrum is not defined")
    sigma = torch.linalg.svdvals(z - z.mean(dim=-2, keepdim=True))
    return torch.nn.functional.pad(sigma.square() / n, (0, m - sigma.shape[-1]))


def noise_floor(
    second_moments: Float[Tensor, " d"], largest: float, dtype: torch.dtype, *, fast: bool = False
) -> float:
    """Variance below which an eigenvalue of the covariance in `Moments` is rounding: the larger of two noises.

    Stored values: a number z = m 2^e, m in [1, 2), of a format with machine precision eps is off by up to half the
    spacing u = eps 2^e; uniformly, with variance u^2 / 12. For log-uniform m, independent of e,
    E[z^2] = E[m^2] E[2^(2e)] with E[m^2] = 3 / (2 ln 2), so rounding adds q_k = (ln 2 / 18) eps^2 E[z_k^2] to the
    variance of column k, and (eps t)^2 / 12 below the smallest normal number t, where the spacing stays eps t. If
    columns round independently, a unit vector v sees sum_k v_k^2 q_k <= max_k q_k; the floor is 4 times that, the most
    that the spread of n >= d samples makes of it. (They do not where a single latent variable moves all columns by
    about the spacing: 4.5 floors seen at d = 1024.)
    Sums: 16 eps times the largest eigenvalue, eps of float64, or of float32 if `fast`; and in the eigenvalue solver,
    sqrt(d) eps of float64 (LAPACK's without vectors: 6, 18 and 19 at d = 128, 512 and 1024); all measured, ours.

    `second_moments` are E[z_k^2], not centred, `largest` is the largest eigenvalue of the covariance and `dtype` the
    coarsest format that the embeddings went through; integers count as exact.
    """
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
    product: Float[Tensor, "*runs m d"], directions: Float[Tensor, "d d"], groups: list[list[int]]
) -> Float[Tensor, "*runs d"]:
    """Singular values of P restricted to each group of input directions, one value per direction.

    `directions` holds one unit vector per column; a group of q directions gets the singular values of
    P @ directions[:, group] in descending order, padded with zeros beyond P's rank. Groups are
    subspaces in which data and augmentation variance are equal, so that no basis inside them is special.
    """
    values = product.new_zeros(*product.shape[:-2], directions.shape[-1])
    for group in groups:
        sigma = torch.linalg.svdvals(product @ directions[:, group])
        values[..., group[: sigma.shape[-1]]] = sigma
    return values
