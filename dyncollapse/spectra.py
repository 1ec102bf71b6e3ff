"""Spectra of embeddings and of the end-to-end product."""

import torch
from jaxtyping import Float
from torch import Tensor


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
