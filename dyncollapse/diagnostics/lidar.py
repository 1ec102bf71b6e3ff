"""LiDAR: how many dimensions distinguish samples from each other, beside how much views of one sample differ."""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from dyncollapse.diagnostics.conversion import Numbers, as_floats
from dyncollapse.diagnostics.measures import effective_rank
from dyncollapse.diagnostics.spectrum_checks import checked, require_finite


def lidar(views: Real[Numbers, "*runs v n d"], delta: float = 1e-4) -> Float[Tensor, "*runs"]:
    """Return LiDAR: the effective rank of the LDA matrix of v views of each of n samples.

    With mu_i the mean of sample i's views and mu the mean of those, it is `lidar_from_covariances` of
    between = (1/n) sum_i (mu_i - mu)(mu_i - mu)^T and within = (1/(n v)) sum_ij (e_ij - mu_i)(e_ij - mu_i)^T.
    Divided by n - 1 and n (v - 1) in place of n and n v, as in stable-pretraining, both covariances change by a factor,
    which matters only as far as `delta` does. A direction without signal keeps an eigenvalue of about 1/(v - 1), the
    noise of a mean of v views. So compare only values of equal v, n and d.

    Args:
        views: Embeddings e_ij: the first axis is the view, the second the sample.
        delta: Added to the variance within samples, in squared units of the embeddings.

    Returns:
        A number from 1 to min(n - 1, d).

    Raises:
        ValueError: For fewer than 2 views or samples, and as for `lidar_from_covariances`.

    References:
        Thilak et al. 2024, LiDAR: sensing linear probing performance in joint embedding SSL architectures,
        arXiv 2312.04000.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> signal = torch.randn(500, 8, generator=g) * torch.tensor([1.0] * 3 + [0.0] * 5)
        >>> views = signal + 0.01 * torch.randn(10, 500, 8, generator=g)  # 3 of 8 directions differ between samples
        >>> round(float(lidar(views)))
        3
    """
    e = as_floats(views, "embeddings")
    if e.ndim < 3:
        raise ValueError(f"the embeddings have shape {tuple(e.shape)}; LiDAR needs (views, samples, dimensions)")
    v, n, d = e.shape[-3:]
    if v < 2 or n < 2:
        raise ValueError(f"LiDAR needs 2 views and 2 samples or more, got {v} view(s) of {n} sample(s)")
    require_finite(e, "embeddings")
    if v * n < d:
        # Coordinates in the span of all rows are fewer than d.
        rows = e.flatten(-3, -2)
        e = torch.linalg.qr(rows.mT, mode="r").R.mT.unflatten(-2, (v, n))
    centres = e.mean(-3)
    means = centres - centres.mean(-2, keepdim=True)
    rest = (e - centres.unsqueeze(-3)).flatten(-3, -2)
    return lidar_from_covariances(means.mT @ means / n, rest.mT @ rest / (n * v), delta)


def lidar_from_covariances(
    between: Real[Numbers, "*runs d d"], within: Real[Numbers, "*runs d d"], delta: float = 1e-4
) -> Float[Tensor, "*runs"]:
    """Return LiDAR from covariances, which can be summed batch by batch.

    It is the effective rank of the eigenvalues of W^(-1/2) B W^(-1/2) with B = between and W = within + delta I. The
    paper's epsilon in the entropy is left out.

    Args:
        between: Covariance of the samples' mean views.
        within: Covariance of the views around their sample's mean.
        delta: Added to `within` here, so leave it out there, in squared units of the embeddings. The value depends on
            the scale of the embeddings unless `delta` is small beside `within`. The paper asks for a small positive
            constant; 1e-4 is the value of public implementations (Skean et al. 2025, stable-pretraining).

    Returns:
        A number from 1 to the rank of `between`.

    Raises:
        ValueError: For shapes that differ, entries that are not finite, a `between` that is zero (no sample differs
            from another) or has a negative eigenvalue, and a W that is not positive definite.

    References:
        Thilak et al. 2024, LiDAR: sensing linear probing performance in joint embedding SSL architectures,
        arXiv 2312.04000.

    Examples:
        >>> between = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
        >>> round(float(lidar_from_covariances(between, 0.1 * torch.eye(3))), 4)
        2.0
    """
    between = as_floats(between, "entries of the covariance between samples")
    within = as_floats(within, "entries of the covariance within samples")
    if between.ndim < 2 or between.shape != within.shape or between.shape[-1] != between.shape[-2]:
        shapes = f"{tuple(between.shape)} and {tuple(within.shape)}"
        raise ValueError(f"the covariances have shapes {shapes}; give two square ones of one shape")
    require_finite(between, "entries of the covariance between samples")
    require_finite(within, "entries of the covariance within samples")
    checked(torch.linalg.eigvalsh(between.detach()))
    identity = torch.eye(within.shape[-1], dtype=within.dtype, device=within.device)
    # Any root R of W = R R^T gives the same eigenvalues, those of W^-1 B; Cholesky's is cheap and has a gradient.
    root, failed = torch.linalg.cholesky_ex(within + delta * identity)
    if failed.any():
        raise ValueError(f"the covariance within samples plus {delta:g} I is not positive definite; raise delta")
    half = torch.linalg.solve_triangular(root, between, upper=False)
    matrix = torch.linalg.solve_triangular(root, half.mT, upper=False)
    # W^-1 magnifies the round-off of B, whose own sign was checked above.
    return effective_rank(torch.linalg.eigvalsh((matrix + matrix.mT) / 2).clamp(min=0))
