"""Rest points of one layer for any covariances, mode by mode: who lives, who dies, and who finds no room."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.limits import Limit, check_weight_decay, population_limit
from dyncollapse.theory.mode_forces import infonce_rest
from dyncollapse.theory.modes import along, generalised_modes, least_variance, relative_modes
from dyncollapse.theory.ties import part_ties


@array_fields
@dataclass(frozen=True, eq=False)
class RestModes:
    """The modes of a rest point, P*^T P* = U diag(c*) U^T, least augmented first.

    Attributes:
        directions: U (d, r), whose columns have u^T S_e u = 1: views have variance 1 along each, and c* is the variance
            of the embedding.
        growth: u^T X0 u (r,), the force at P = 0.
        ratio: Effective rho (r,): 1 - growth over what growth would be without augmentation and weight decay. A mode
            dies from 1 on. Without weight decay it is rho for infonce and for two-sided spectral and dot, lambda rho
            for vcreg, and for barlow 0 where the views are positively correlated and else 1.
        variance: c* (r,): 0 for modes that die or find no room, infinite where nothing stops the growth.
        room: Whether an output is left for the mode (r,). The modes of largest gain fill the outputs.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> found = rest_modes(GaussianTask.block(3, 2, aug_strength=2.0, views="two-sided"), "spectral", outputs=2)
        >>> found.room.tolist(), found.alive.tolist()
        ([True, True, False], [True, True, False])
    """

    directions: Float[Tensor, "d r"]
    growth: Float[Tensor, " r"]
    ratio: Float[Tensor, " r"]
    variance: Float[Tensor, " r"]
    room: Bool[Tensor, " r"]

    @property
    def alive(self) -> Bool[Tensor, " r"]:
        """Which modes rest above zero."""
        return self.variance > 0

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """P*^T P* (d, d); P* itself is determined up to a rotation of the embedding."""
        return self.directions * self.variance @ self.directions.T


@outside_autocast
def rest_modes(
    task: Task,
    loss: str = "infonce",
    temperature: float | None = None,
    *,
    invariance: float | None = None,
    weight_decay: float = 0.0,
    outputs: int | None = None,
) -> RestModes:
    """The modes of the population flow's rest point, for covariances or moments that need not commute.

    Weight decay is exact for one layer, where it adds w I to A_e; without it the rest point of P is that of any depth.
    For infonce, dot, spectral and vcreg, U diagonalises S_e and what augmentation and weight decay take from the force
    at zero. With enough outputs, or gains that differ, the rest point is then the only minimum. For barlow the columns
    are eigenvectors of G. Without weight decay its minima are many: all modes gain the same, so any m of them may fill
    m outputs, and negatively correlated directions may be mixed in. What is returned is the limit of vanishing weight
    decay.

    Args:
        task: Covariances or moments, and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of one layer.
        outputs: Width m of the narrowest layer, where it leaves room for fewer modes than there are.

    Returns:
        The modes in the range of S_e, in descending order of gain; of equal gain, those that grow fastest from small
        starts first, and of equal rate, the least augmented. Inputs that carry neither data nor augmentation keep
        their initial weights, and count as 0 here.

    Raises:
        ValueError: For a loss without closed form, unusable coefficients, and where the rest point depends on the
            start (singular S_e under a loss that does not see its kernel, without weight decay).

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import PairMoments
        >>> moments = PairMoments.from_covariances(torch.eye(3), torch.diag(torch.tensor([0.75, 0.25, -0.5])))
        >>> rest_modes(moments, "spectral").variance.tolist()  # gamma = 1 - rho, while that is positive
        [0.75, 0.25, 0.0]
        >>> rest_modes(moments, "vcreg", invariance=2.0, outputs=1).variance.tolist()  # 1 - 2 rho
        [0.5, 0.0, 0.0]
    """
    check_weight_decay(weight_decay)
    if outputs is not None and outputs < 1:
        raise ValueError(f"outputs is {outputs}; an embedding has at least one dimension")
    limit = population_limit(task, loss, temperature, invariance)
    if loss == "barlow":
        found = _barlow(task, weight_decay)
    elif loss == "infonce":
        found = _infonce(task, limit, weight_decay)
    else:
        found = _quartic(task, limit, loss, weight_decay)
    directions, growth, ratio, variance = found
    room = torch.arange(len(ratio), device=ratio.device) < (len(ratio) if outputs is None else outputs)
    return RestModes(directions, growth, ratio, torch.where(room, variance, 0.0), room)


_Found = tuple[Tensor, Tensor, Tensor, Tensor]


def _infonce(task: Task, limit: Limit, weight_decay: float) -> _Found:
    if weight_decay:
        doubled, u = relative_modes(limit.metric, _decayed(limit.push, weight_decay), least_variance(limit.metric))
        ratio = doubled / 2
    else:
        ratio, u = generalised_modes(task)
    u = _parted(u, ratio, task, 1.0)
    growth = along(u, limit.growth) - weight_decay * u.square().sum(0)
    growth = torch.where(ratio == 1, 0.0, growth)
    # 1 - rho is growth / 2, without cancellation where views are two-sided. Below round-off of rho's terms, rho is 0.
    free = ratio <= 100 * task.dim * torch.finfo(ratio.dtype).eps * ratio[-1:].sum()
    gap = growth / 2 if task.views == "two-sided" else 1 - ratio
    variance = torch.where(free, torch.inf, infonce_rest(ratio, gap.clamp_min(0)))
    return u, growth, ratio, torch.where(ratio < 1, variance, 0.0)


def _quartic(task: Task, limit: Limit, loss: str, weight_decay: float) -> _Found:
    assert limit.repulsion is not None
    push = _decayed(limit.push, weight_decay)
    pushed, u = relative_modes(limit.metric, push, least_variance(limit.metric))
    u = _parted(u, pushed, task, limit.pull)
    unseen = task.dim - u.shape[1]
    if unseen and not weight_decay and not (loss == "vcreg" and task.views == "one-sided"):
        raise ValueError(
            f"{unseen} of {task.dim} input directions carry no data, and the {loss} loss leaves them as they started; "
            "restrict the task to the range of its data covariance, or add weight decay"
        )
    growth = limit.growth_along(u, weight_decay)
    return u, growth, 1 - growth / limit.pull, growth.clamp_min(0) / limit.repulsion


def _barlow(task: Task, weight_decay: float) -> _Found:
    """P G P^T = I along eigenvectors of G with eigenvalue g > 0; with weight decay 1 - w / (4 g) in place of 1."""
    g, v = torch.linalg.eigh(task.shared)
    g, v = g.flip(0), part_ties(v.flip(1), g.flip(0), [(task.seen[1], False), (task.seen[0], True)])
    empty = g.abs() <= least_variance(task.shared)
    variances = along(v, task.seen[0])  # of views along unit vectors
    seen = variances > least_variance(task.seen[0])
    g, v, empty, variances = g[seen], v[:, seen], empty[seen], variances[seen]
    growth = torch.where(empty, 0.0, 4 * g) - weight_decay
    alive = growth > 0
    squared = torch.where(alive, growth / (4 * g.square()), 0.0)  # p*^2
    ratio = torch.where(alive, weight_decay / (4 * g), 1 - growth.clamp_max(0) / (4 * variances))
    return v / variances.sqrt(), growth / variances, ratio, squared * variances


def _parted(u: Tensor, pushed: Tensor, task: Task, scale: float) -> Tensor:
    """Modes from which augmentation takes equally much, and whose gain is equal, in the order of `part_ties`.

    u^T S_e^2 u is the variance of a mode whose u has u^T S_e u = 1.
    """
    s_e, a_e = task.seen
    return part_ties(u, pushed, [(s_e @ s_e, True), (a_e, False)], scale)


def _decayed(push: Tensor, weight_decay: float) -> Tensor:
    return push + weight_decay * torch.eye(len(push), dtype=push.dtype, device=push.device)
