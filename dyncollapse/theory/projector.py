"""What a projector protects: singular values of the representation where the embedding's modes live or die."""

import torch
from jaxtyping import Float
from torch import Tensor


def layer_values_at_rest(
    product: Float[Tensor, " k"], imbalance: Float[Tensor, " k"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Singular values of encoder and projector, two aligned linear layers, from those of their product at rest.

    The flow conserves C_k = s1^2 - s2^2, so s1^2 = (C_k + sqrt(C_k^2 + 4 p*^2)) / 2. Where the embedding's mode dies
    (p* = 0), the representation's rests at sqrt(max(C_k, 0)): a projector that starts smaller than the encoder takes
    the collapse on itself.

    Args:
        product: p* (k,) of each mode, as from `rest_singular_values`.
        imbalance: C_k (k,), as at the start.

    Returns:
        s1 of the encoder, whose output is the representation, and s2 of the projector.

    Raises:
        ValueError: For negative singular values.

    References:
        Jing et al. 2022, Proposition 1 and App. B.5; docs/explanation/one-axis.md.

    Examples:
        >>> product, imbalance = torch.tensor([1.5, 0.0, 0.0]), torch.tensor([0.0, 0.25, -0.25])
        >>> [values.tolist() for values in layer_values_at_rest(product**2, imbalance)]  # alive, protected, lost
        [[1.5, 0.5, 0.0], [1.5, 0.0, 0.5]]
    """
    if bool((product < 0).any()):
        raise ValueError("product holds a negative number; singular values are at least 0")
    root = torch.hypot(imbalance, 2 * product)
    larger = ((root + imbalance.abs()) / 2).sqrt()
    # s1 s2 = p*: the smaller value is a quotient, without cancellation.
    smaller = torch.where(larger > 0, product / larger, 0.0)
    upper = imbalance >= 0
    return torch.where(upper, larger, smaller), torch.where(upper, smaller, larger)


def protection_rate(growth: Float[Tensor, " k"], imbalance: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Rate at which a dead mode of the embedding decays once the layers have taken up their imbalance.

    p = s1 s2 then decays as exp(-|x0| |C_k| t); balanced layers, C_k = 0, decay only as a power of time.

    Args:
        growth: x0 (k,), the force on each mode at zero, below 0 for modes that die.
        imbalance: C_k (k,).

    Returns:
        The rate (k,); 0 for modes that do not die.

    Examples:
        >>> protection_rate(torch.tensor([-2.0, 1.0]), torch.tensor([0.25, 0.25])).tolist()
        [0.5, 0.0]
    """
    return (-growth).clamp_min(0) * imbalance.abs()
