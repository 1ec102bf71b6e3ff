"""The modes that a simulation follows: common eigenvectors where there are any, else generalised ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.modes import along, generalised_modes, have_common_modes, modes
from dyncollapse.theory.ties import equal_groups


@dataclass(frozen=True, eq=False)
class FollowedModes:
    """Modes of any pair of covariances, least augmented first.

    Attributes:
        directions: One mode per column (d, k): unit vectors where the covariances commute, else u with u^T S_e u = 1.
        orthonormal: The directions (d, k) among the right singular vectors of `seen_by`: orthonormal columns.
        data_var: Variance of the data along each (k,).
        aug_var: Variance of the augmentation (k,).
        ratio: Rho (k,); NaN for inputs that never vary.
        groups: Index lists of equal modes, inside which no basis is special.
        root: S_e^(1/2) (d, d) where the modes are whitened, else None.
    """

    directions: Float[Tensor, "d k"]
    orthonormal: Float[Tensor, "d k"]
    data_var: Float[Tensor, " k"]
    aug_var: Float[Tensor, " k"]
    ratio: Float[Tensor, " k"]
    groups: list[list[int]]
    root: Float[Tensor, "d d"] | None

    @property
    def whitened(self) -> bool:
        """Whether singular values are those of P S_e^(1/2), for covariances that do not commute."""
        return self.root is not None

    def seen_by(self, product: Float[Tensor, "*runs m d"]) -> Float[Tensor, "*runs m d"]:
        """The matrix whose singular values are those of the modes: P, or P S_e^(1/2)."""
        return product if self.root is None else product @ self.root


@outside_autocast
def followed_modes(task: Task) -> FollowedModes:
    """Common modes of both covariances where they commute, else the generalised modes.

    Args:
        task: Covariances or moments, and view convention.

    Returns:
        The modes; see `modes` and `generalised_modes`.

    References:
        docs/explanation/theory.md, section 2; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> followed_modes(GaussianTask.block(2, 1, aug_strength=1.5)).ratio.tolist()
        [0.0, 1.5]
        >>> turned = GaussianTask(torch.eye(2) + torch.ones(2, 2), torch.diag(torch.tensor([1.0, 2.0])))
        >>> followed_modes(turned).whitened
        True
    """
    if have_common_modes(task):
        common = modes(task)
        still = (common.data_var == 0) & (common.aug_var == 0)
        ratio = torch.where(still, torch.nan, common.ratio)
        return FollowedModes(
            common.directions, common.directions, common.data_var, common.aug_var, ratio, common.groups, None
        )
    ratio, u = generalised_modes(task)
    data_var, aug_var = (along(u, cov) for cov in task.equivalent)
    return FollowedModes(u, task.seen_root @ u, data_var, aug_var, ratio, equal_groups(ratio), task.seen_root)
