"""What collapse costs a linear probe: the error of ridge regression from an embedding whose modes have shrunk."""

import torch
from jaxtyping import Float
from torch import Tensor


def probe_cost(
    data_var: Float[Tensor, "... k"], embedding_var: Float[Tensor, "... k"], ridge: float
) -> Float[Tensor, "... k"]:
    """Share of the target's variance along each mode that a ridge probe of the embedding misses.

    For a target beta^T x, modes that embedding and data have in common, and infinitely many clean samples, the excess
    error is sum_k beta_k^2 s_k (l / (c_k + l))^2.

    Args:
        data_var: s of each mode; modes without data have no target and cost nothing.
        embedding_var: c of each mode: the embedding's variance on clean data, p^2 s.
        ridge: l, the ridge penalty per sample.

    Returns:
        (l / (c_k + l))^2, 0 without data: 1 for a dimension that is lost, near 0 for one with c far above l.

    Raises:
        ValueError: For a ridge that is not finite and above 0, and negative variances.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> probe_cost(torch.ones(3), torch.tensor([0.0, 1.0, 3.0]), 1.0).tolist()
        [1.0, 0.25, 0.0625]
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge is {ridge}; it must be finite and above 0")
    if bool((data_var < 0).any() or (embedding_var < 0).any()):
        raise ValueError("a variance is below 0; all must be at least 0")
    return torch.where(data_var > 0, (ridge / (embedding_var + ridge)).square(), 0.0)


def excess_error(
    target: Float[Tensor, "... k"],
    data_var: Float[Tensor, "... k"],
    embedding_var: Float[Tensor, "... k"],
    ridge: float,
) -> Float[Tensor, "..."]:
    """Mean squared error of a ridge probe on infinitely many samples of a noiseless linear target.

    Args:
        target: beta (k,), coefficients of the target along the modes.
        data_var: s of each mode.
        embedding_var: c of each mode.
        ridge: l, the ridge penalty per sample.

    Returns:
        sum_k beta_k^2 s_k (l / (c_k + l))^2.

    Raises:
        ValueError: As `probe_cost`.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> excess_error(torch.ones(2), torch.ones(2), torch.tensor([1.0, 0.0]), 1.0).item()  # 1/4 + 1
        1.25
    """
    return (target.square() * data_var * probe_cost(data_var, embedding_var, ridge)).sum(-1)
