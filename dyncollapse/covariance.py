"""The contrastive covariance X = Sigma0 - Sigma1 that drives the gradient flow (Lemma 2)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ContrastiveCovariance:
    """The two sides of the contrastive covariance, each (*runs, d, d) and PSD."""

    data: Float[Tensor, "*runs d d"]
    augmentation: Float[Tensor, "*runs d d"]

    @property
    def force(self) -> Float[Tensor, "*runs d d"]:
        """X = Sigma0 - Sigma1; under Eq. 2 dL/dP = -P X exactly (Lemma 2)."""
        return self.data - self.augmentation


def contrastive_covariance(
    x: Float[Tensor, "*runs n d"],
    x_pos: Float[Tensor, "*runs n d"],
    alpha: Float[Tensor, "*runs n n"],
    negatives: Float[Tensor, "*runs n d"] | None = None,
) -> ContrastiveCovariance:
    """Weigh data differences against augmentation differences by the softmax weights alpha (Lemma 2).

    Sigma0 = (1/n) sum_{i != j} alpha_ij (x_i - y_j)(x_i - y_j)^T,
    Sigma1 = (1/n) sum_i (1 - alpha_ii)(x'_i - x_i)(x'_i - x_i)^T,
    with negatives y = x (one-sided, the default) or y = x' (two-sided). Inputs may carry any leading run
    dimensions; memory stays at alpha's n x n. With the weights of another loss (NT-Xent, say) the two sums
    are a diagnostic, not that loss's exact force.
    """
    y = x if negatives is None else negatives
    n = x.shape[-2]
    centre = x.mean(dim=-2, keepdim=True)
    x, x_pos, y = x - centre, x_pos - centre, y - centre
    shift = x_pos - x

    # Row and column sums come from B itself: 1 - alpha_ii would lose all digits once the embeddings separate.
    b = alpha.clone()
    b.diagonal(dim1=-2, dim2=-1).zero_()
    r, c = b.sum(-1).unsqueeze(-1), b.sum(-2).unsqueeze(-1)
    cross = x.mT @ (b @ y)
    data = (x.mT @ (r * x) + y.mT @ (c * y) - cross - cross.mT) / n
    augmentation = shift.mT @ (r * shift) / n
    return ContrastiveCovariance(data, augmentation)
