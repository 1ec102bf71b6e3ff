"""Directions in which data and augmentation are independent, and their augmentation ratios rho."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.gaussian import as_seen
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast

# Round-off of a covariance C of d inputs, in units of d eps |C| (|C| entry by entry), after matrix products and the
# eigenvalue solver. It was measured to be at most 1 along any direction, for d from 2 to 128 in both precisions.
COVARIANCE_ROUND_OFF = 8
# Variances below 0 by up to this many eps of the augmentation's count as 0: round-off of up to some thousand inputs.
NO_DATA = 1e4


@array_fields
@dataclass(frozen=True, eq=False)
class Modes:
    """Common eigenvectors of data and augmentation covariance, least augmented first.

    Attributes:
        data_var: Data variance s of each mode (d,).
        aug_var: Augmentation variance a of each mode (d,).
        directions: One unit vector per column (d, d).
        groups: Index lists of modes with equal variances, inside which no basis is special.
        ratio: rho = a_e / (2 s_e), the spread of positive pairs over that of negative pairs. Eq. 2 collapses a mode
            exactly when rho >= 1. Within round-off of 1 it is set to exactly 1 (`at_threshold`).

    References:
        docs/explanation/theory.md, section 2.
    """

    data_var: Float[Tensor, " d"]
    aug_var: Float[Tensor, " d"]
    directions: Float[Tensor, "d d"]
    groups: list[list[int]]
    ratio: Float[Tensor, " d"]


@outside_autocast
def modes(task: Task) -> Modes:
    """Diagonalise both covariances at once: the directions whose collapse can be followed one by one.

    Args:
        task: Covariances and view convention; for correlated noises and for moments, S and A of independent noise with
            the same moments (`PairMoments.equivalent`), where s is below 0 along directions in which the views are
            negatively correlated.

    Returns:
        Their common eigenvectors, with variances and ratios.

    Raises:
        ValueError: When the covariances do not commute.

    References:
        docs/explanation/theory.md, section 2; docs/explanation/beyond-the-paper.md, section 5c.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> modes(GaussianTask.block(2, 1, aug_strength=3.0, data_var=0.5)).ratio.tolist()
        [0.0, 3.0]
    """
    s, a = task.equivalent
    tolerance = _commuting(task)
    if (found := relative_commutator(task)) > tolerance:
        raise ValueError(
            f"data and augmentation covariance do not commute (relative commutator {found:.2g}) and have no common "
            "modes; use generalised_modes and rest_modes, which need none"
        )
    # Eigenvectors of a generic combination are common ones. The factor sqrt(2) makes it unlikely that two distinct
    # pairs (s, a) give the same eigenvalue.
    norm_s, norm_a = float(s.abs().max()) or 1.0, float(a.abs().max()) or 1.0
    directions = torch.linalg.eigh(s / norm_s + math.sqrt(2) * a / norm_a).eigenvectors
    data_var, aug_var = (
        _merge_equal(along(directions, cov), tolerance * norm) for cov, norm in ((s, norm_s), (a, norm_a))
    )
    s_e, _ = as_seen(data_var, aug_var, task.views)
    scaled = directions * torch.where(s_e > 0, s_e.rsqrt(), 0.0)
    ratio = settled(augmentation_ratio(data_var, aug_var, task.views), scaled, task)
    order = sorted(range(task.dim), key=lambda k: (float(ratio[k]), -float(data_var[k])))
    data_var, aug_var, ratio, directions = data_var[order], aug_var[order], ratio[order], directions[:, order]
    groups = [
        list(group)
        for _, group in itertools.groupby(range(task.dim), key=lambda k: (float(data_var[k]), float(aug_var[k])))
    ]
    return Modes(data_var, aug_var, directions, groups, ratio)


def relative_commutator(task: Task) -> float:
    """|S A - A S| / (|S| |A|) in Frobenius norm, 0 where one of them vanishes."""
    s, a = task.equivalent
    scale = float(torch.linalg.matrix_norm(s) * torch.linalg.matrix_norm(a))
    return float(torch.linalg.matrix_norm(s @ a - a @ s)) / scale if scale else 0.0


def have_common_modes(task: Task) -> bool:
    """Whether data and augmentation covariance commute up to round-off, so that `modes` are defined."""
    return relative_commutator(task) <= _commuting(task)


def _commuting(task: Task) -> float:
    return 100 * task.dim * torch.finfo(task.seen[0].dtype).eps


def augmentation_ratio(data_var: Tensor, aug_var: Tensor, views: str) -> Tensor:
    """Augmentation ratio rho = a_e / (2 s_e): a / (2 s) one-sided, a / (s + a) two-sided.

    Args:
        data_var: s; values below 0 count as 0 where round-off explains them. Two-sided views that are negatively
            correlated have s < 0.
        aug_var: a; values below 0 are round-off and count as 0.
        views: The view convention.

    Returns:
        Rho. It is 0 without augmentation. Without data it is infinite one-sided and exactly 1 two-sided. With data and
        two-sided views it is below 1, however strong the augmentation, and above 1 for s < 0.

    Examples:
        >>> augmentation_ratio(torch.tensor([1.0]), torch.tensor([3.0]), "two-sided").item()
        0.75
    """
    aug_var = aug_var.clamp_min(0)
    explained = data_var >= -NO_DATA * torch.finfo(data_var.dtype).eps * aug_var
    negative = (views == "two-sided") & ~explained & (data_var + aug_var > 0)
    data_var = torch.where(negative, data_var, data_var.clamp_min(0))
    s_e, a_e = as_seen(data_var, aug_var, views)
    ratio = torch.where(a_e > 0, a_e / (2 * s_e), 0.0)
    return ratio if views == "one-sided" else torch.where(data_var > 0, _below_one(ratio), ratio)


def at_threshold(ratio: Float[Tensor, "*any"], tolerance: Tensor | float = 0.0) -> Bool[Tensor, "*any"]:
    """Whether rho is 1: such a mode rests at zero, but decays by a power of time only.

    Args:
        ratio: Rho. `modes` and `generalised_modes` set it to exactly 1 where round-off cannot tell it from 1. For a
            direction u with u^T S_e u = 1 and absolute values entry by entry, that is within
            8 d eps |u|^T (|S| + |A| / 2) |u| of 1 for one-sided views, and where 1 - rho = u^T S u is at most
            8 d eps |u|^T |S| |u| for two-sided ones.
        tolerance: How far from 1 ratios of another origin may be.

    Returns:
        Truth values in the shape of `ratio`.

    Examples:
        >>> at_threshold(torch.tensor([0.5, 1.0])).tolist()
        [False, True]
    """
    return (ratio - 1).abs() <= tolerance


@outside_autocast
def generalised_modes(task: Task) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Augmentation ratios and the directions that diagonalise any pair of covariances, commuting or not.

    U^T S_e U = I and U^T A_e U = 2 diag(rho): the generalised eigenproblem A_e u = 2 rho S_e u. Where S_e is singular,
    its kernel carries noise only; U then includes the combination of noise-only inputs that cancels most of the
    augmentation (a Schur complement), as the network learns to.

    Args:
        task: Covariances and view convention.

    Returns:
        Rho (r,), ascending and exactly 1 within round-off of 1, and U (d, r), where r is the rank of S_e.

    References:
        docs/explanation/beyond-the-paper.md, section 5b.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask(torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
        >>> [round(value, 4) for value in generalised_modes(task)[0].tolist()]
        [0.0, 1.0]
    """
    s_e, a_e = task.seen
    doubled, directions = relative_modes(s_e, a_e, least_variance(s_e))
    return settled(doubled / 2, directions, task), directions


def least_variance(cov: Float[Tensor, "d d"]) -> float:
    """Eigenvalues of a covariance up to this are round-off of 0."""
    return 100 * cov.shape[0] * torch.finfo(cov.dtype).eps * float(torch.linalg.matrix_norm(cov, ord=2))


@outside_autocast
def relative_modes(
    data: Float[Tensor, "d d"], augmentation: Float[Tensor, "d d"], least: float
) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Solve the generalised eigenproblem: augmentation u = ratio data u.

    Args:
        data: A PSD matrix (d, d).
        augmentation: A PSD matrix (d, d). In the kernel of `data` there is augmentation only, and U includes the
            combination of those directions that cancels most of it (a Schur complement).
        least: Eigenvalues of `data` up to this count as 0.

    Returns:
        The ratios (r,), ascending, and U (d, r) with U^T data U = I, where r is the rank of `data`.

    References:
        docs/explanation/beyond-the-paper.md, section 5b.

    Examples:
        >>> ratios, _ = relative_modes(2 * torch.eye(2), torch.diag(torch.tensor([1.0, 3.0])), 1e-6)
        >>> [round(value, 4) for value in ratios.tolist()]
        [0.5, 1.5]
    """
    variances, frame = torch.linalg.eigh(data)
    kept = variances > least
    lift, empty = frame[:, kept], frame[:, ~kept]
    if empty.shape[1]:
        # In directions that carry no noise either, entries are round-off, which must not be inverted.
        round_off = least * torch.maximum(augmentation.abs().max() / variances[-1], variances.new_ones(()))
        noise = torch.linalg.pinv(empty.T @ augmentation @ empty, atol=round_off, hermitian=True)
        lift = lift - empty @ noise @ (empty.T @ augmentation @ lift)
    white = lift / variances[kept].sqrt()
    ratios, turn = torch.linalg.eigh(white.T @ augmentation @ white)
    return ratios.clamp_min(0), white @ turn


def along(columns: Float[Tensor, "d k"], matrix: Float[Tensor, "d d"]) -> Float[Tensor, " k"]:
    """u^T matrix u for every column u."""
    return ((columns.T @ matrix) * columns.T).sum(-1)


def _merge_equal(values: Tensor, tolerance: float) -> Tensor:
    """Set values that differ only by round-off to one value, and values that round-off cannot tell from 0 to 0."""
    merged = torch.where(values.abs() <= tolerance, 0.0, values)
    ascending = merged.argsort()
    for before, after in itertools.pairwise(ascending.tolist()):
        if merged[after] - merged[before] <= tolerance:
            merged[after] = merged[before]
    return merged


def settled(ratio: Float[Tensor, " r"], directions: Float[Tensor, "d r"], task: Task) -> Float[Tensor, " r"]:
    """Rho, set to 1 where round-off cannot tell it from 1, and kept on its side of 1 elsewhere.

    Args:
        ratio: Rho.
        directions: Columns u with u^T S_e u = 1, or 0 where S_e vanishes.
        task: Where both come from.

    Returns:
        Rho as it may be compared with 1.
    """
    data, aug = task.equivalent
    u, s, a = directions.abs(), data.abs(), aug.abs()
    unit = COVARIANCE_ROUND_OFF * task.dim * torch.finfo(ratio.dtype).eps
    if task.views == "one-sided":
        return torch.where(at_threshold(ratio, unit * along(u, s + a / 2)), 1.0, ratio)
    signal = along(directions, data)
    empty = (signal.abs() <= unit * along(u, s)) & (ratio > 0)
    return torch.where(empty, 1.0, torch.where(signal < 0, ratio, _below_one(ratio)))


def _below_one(ratio: Tensor) -> Tensor:
    return ratio.clamp_max(1 - torch.finfo(ratio.dtype).eps / 2)
