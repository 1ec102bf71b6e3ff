"""Alignment of adjacent layers: measured, and bounded by the conserved imbalance (Theorem 2, corrected)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.precision import full_precision
from dyncollapse.theory.imbalance import imbalance

# Share of |A|^2 above which a pattern counts as reached. A rule of thumb: for independent frames of width h it is 1/h.
CLEAR_PATTERN = 0.9


@full_precision
def alignment_matrix(w1: Float[Tensor, "*runs h d"], w2: Float[Tensor, "*runs m h"]) -> Float[Tensor, "*runs k l"]:
    """Alignment matrix A = V2^T U1 for W1 = U1 S1 V1^T below W2 = U2 S2 V2^T (Section 5.2).

    Args:
        w1: The lower layer (*runs, h, d).
        w2: The upper layer (*runs, m, h).

    Returns:
        A: rows follow W2's right singular vectors, columns W1's left ones, both by descending singular value. Signs are
        arbitrary, so look at |A|. Within a group of equal singular values the basis is arbitrary, too: use
        `block_alignment` there.

    Raises:
        ValueError: For layers that are not adjacent.

    References:
        Jing et al. 2022, Section 5.2.

    Examples:
        >>> w = torch.diag(torch.tensor([2.0, 1.0]))
        >>> alignment_matrix(w, w).abs().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_adjacent(w1, w2)
    u1 = torch.linalg.svd(w1, full_matrices=False).U
    v2h = torch.linalg.svd(w2, full_matrices=False).Vh
    return v2h @ u1


@full_precision
def block_alignment(w1: Float[Tensor, "h d"], w2: Float[Tensor, "m h"], gap: float = 1e-2) -> float:
    """Share of W1's left singular frame that lies in the matching blocks of W2's right one.

    Neighbouring indices form one block where the singular values of either layer differ by less than `gap` times that
    layer's largest. Inside a block single singular vectors are arbitrary, so only the block as a whole is compared.

    Args:
        w1: The lower layer (h, d).
        w2: The upper layer (m, h).
        gap: At least 0 and below 1; the default is a rule of thumb.

    Returns:
        Between 0 and 1, and 1 exactly when A is block diagonal. It does not depend on signs or on rotations within
        blocks.

    Raises:
        ValueError: For layers that are not adjacent and a gap out of range.

    References:
        Jing et al. 2022, Theorem 2; docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> w = torch.diag(torch.tensor([2.0, 1.0]))
        >>> block_alignment(w, w), block_alignment(w, w.flip(0, 1))  # the same order, the opposite one
        (1.0, 0.0)
    """
    _check_adjacent(w1, w2)
    u1, s1, _ = torch.linalg.svd(w1, full_matrices=False)
    _, s2, v2h = torch.linalg.svd(w2, full_matrices=False)
    return _share_in_blocks(v2h @ u1, s1, s2, gap)


@array_fields
@dataclass(frozen=True, eq=False)
class AlignmentReport:
    """How two adjacent layers are aligned, and how well the imbalance C and the product P alone bound that.

    h is the hidden width. Indices count singular values in descending order; missing ones are zeros. No field depends
    on signs or on rotations inside a block.

    Attributes:
        imbalance_spectrum: Eigenvalues of C (h,), descending.
        imbalance_norm: The largest of their absolute values.
        product_gaps: Differences of neighbouring singular values of P (h - 1,).
        blocks: Lists of neighbouring indices whose singular values are nearly equal in either layer.
        sines: Per block, the sine of the largest angle between the spaces that W1's left and W2's right singular
            vectors span, as measured.
        bounds: Per block, the largest sine that `alignment_bound` allows; infinite where it says nothing.
        permutation: At k the right singular vector of W2 that best matches the k-th left one of W1, ascending inside a
            block.
        alignment: The share of |A|^2 on the identity (`block_alignment`).
        permuted_alignment: The share of |A|^2 on that matching.

    References:
        docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> w1, w2 = torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([3.0, 0.5]))
        >>> report = alignment_report(w1, w2)
        >>> report.pattern, report.imbalance_spectrum.tolist(), report.certified
        ('aligned', [7.0, 0.75], True)
    """

    imbalance_spectrum: Float[Tensor, " h"]
    imbalance_norm: float
    product_gaps: Float[Tensor, " h-1"]
    blocks: list[list[int]]
    sines: Float[Tensor, " b"]
    bounds: Float[Tensor, " b"]
    permutation: list[int]
    alignment: float
    permuted_alignment: float

    @property
    def certified(self) -> bool:
        """Whether every bound lies below 1: no space of W1 is then orthogonal to its partner in W2.

        It is true without meaning anything where all indices form one block (`pattern` "degenerate"), as in a network
        of zeros.
        """
        return bool((self.bounds < 1).all())

    @property
    def pattern(self) -> Literal["degenerate", "aligned", "anti-aligned", "permuted", "mixed"]:
        """What |A| looks like.

        "degenerate": all indices form one block, so there is no order. "aligned": `alignment` is at least
        CLEAR_PATTERN. "anti-aligned" and "permuted": `permuted_alignment` is at least CLEAR_PATTERN, on the reversed
        order or on another one. "mixed": none of these.
        """
        h = len(self.permutation)
        if h > 1 and len(self.blocks) == 1:
            return "degenerate"
        if self.alignment >= CLEAR_PATTERN:
            return "aligned"
        if self.permuted_alignment < CLEAR_PATTERN:
            return "mixed"
        label = _block_labels(self.blocks)
        reversed_order = all(label[row] == label[h - 1 - k] for k, row in enumerate(self.permutation))
        return "anti-aligned" if reversed_order else "permuted"


@full_precision
def alignment_report(w1: Float[Tensor, "h d"], w2: Float[Tensor, "m h"], gap: float = 1e-2) -> AlignmentReport:
    """Measure how two adjacent layers are aligned, and bound their misalignment from C and P.

    Args:
        w1: The lower layer (h, d) of one run.
        w2: The upper layer (m, h).
        gap: As in `block_alignment`.

    Returns:
        The report.

    Raises:
        ValueError: For layers with run dimensions or that are not adjacent, and a gap out of range.

    References:
        docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> w = torch.diag(torch.tensor([2.0, 1.0]))
        >>> alignment_report(w, w).pattern, alignment_report(w, w.flip(0, 1)).pattern
        ('aligned', 'anti-aligned')
    """
    if w1.ndim != 2 or w2.ndim != 2:
        raise ValueError(
            f"layers have shapes {tuple(w1.shape)} and {tuple(w2.shape)}; report on one run (two matrices) at a time"
        )
    _check_adjacent(w1, w2)
    h = w1.shape[0]
    # Both frames of the hidden space are completed, since missing singular values are zeros with vectors of their own.
    # The outer frames are not needed in full.
    u1, s1, _ = torch.linalg.svd(w1, full_matrices=w1.shape[1] < w1.shape[0])
    _, s2, v2h = torch.linalg.svd(w2, full_matrices=w2.shape[0] < w2.shape[1])
    blocks, a2 = _blocks(_pad(s1, h), _pad(s2, h), gap), v2h @ u1
    c, p = torch.linalg.eigvalsh(imbalance(w1, w2)).flip(-1), _pad(torch.linalg.svdvals(w2 @ w1), h)
    outside = [[i for i in range(h) if i not in block] for block in blocks]
    sines = [
        torch.linalg.matrix_norm(a2[rows][:, block], ord=2) if rows else a2.new_zeros(())
        for rows, block in zip(outside, blocks, strict=True)
    ]
    permutation, share = _matching(a2.square(), blocks)
    return AlignmentReport(
        imbalance_spectrum=c,
        imbalance_norm=float(c.abs().max()),
        product_gaps=p[:-1] - p[1:],
        blocks=blocks,
        sines=torch.stack(sines),
        bounds=alignment_bound(p, c, blocks),
        permutation=permutation,
        alignment=_share_in_blocks(a2[: len(s2), : len(s1)], s1, s2, gap),
        permuted_alignment=share,
    )


def module_alignment(module: torch.nn.Module, first: str, second: str, gap: float = 1e-2) -> AlignmentReport:
    """`alignment_report` of two linear layers of a torch module, in float64.

    Any activation or normalisation between the two is ignored. The bound holds with or without it, but the flow
    conserves C only without.

    Args:
        module: Holds both layers.
        first: Name of the lower layer, as in `module.named_modules()`.
        second: Name of the layer that reads its outputs.
        gap: As in `block_alignment`.

    Returns:
        The report.

    Raises:
        ValueError: For a name that is not a linear layer (the message lists those there are), and layers that do not
            fit together.

    References:
        docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> projector = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
        >>> with torch.no_grad():
        ...     for layer, values in ((projector[0], [2.0, 1.0]), (projector[2], [1.0, 3.0])):
        ...         _ = layer.weight.copy_(torch.diag(torch.tensor(values)))
        >>> module_alignment(projector, "0", "2").pattern  # strong outputs meet weak inputs
        'anti-aligned'
    """
    linear = {name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    for name in (first, second):
        if name not in linear:
            known = ", ".join(f"{other!r}" for other in linear) or "none"
            raise ValueError(
                f"{name!r} is not a linear layer of this {type(module).__name__}; its linear layers: {known}"
            )
    w1, w2 = (linear[name].weight.detach().to(torch.float64) for name in (first, second))
    return alignment_report(w1, w2, gap)


def alignment_bound(
    product_singular_values: Float[Tensor, "*runs k"],
    imbalance_spectrum: Float[Tensor, "*runs h"],
    blocks: Sequence[Sequence[int]] | None = None,
) -> Float[Tensor, "*runs b"]:
    """Bound the sine of the angle between W1's left and W2's right singular vectors, from P and C alone.

    Let gamma = |C|_2, let g be half the spread of C's eigenvalues, and q_k = sqrt(p_k^2 + gamma^2 / 4). Then
    sin <= g / (distance - g), where distance is that from the block's q to the nearest q outside the block. The bound
    is 0 when C = lambda I, as long as P separates the block. P and C determine the spectra of W1 W1^T and W2^T W2 up to
    g, and the theorem of Davis and Kahan does the rest (docs/explanation/beyond-the-paper.md).

    Args:
        product_singular_values: Those of P = W2 W1 (*runs, k), descending.
        imbalance_spectrum: All h eigenvalues of C (*runs, h), in any order.
        blocks: Lists that cut 0, ..., h - 1 into runs of neighbours whose spaces are compared as wholes; every index
            alone unless given.

    Returns:
        One bound per block (*runs, b); infinite where distance <= g, which bounds nothing.

    Raises:
        ValueError: For blocks that do not cut 0, ..., h - 1 in this order.

    References:
        Davis and Kahan 1970; docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> alignment_bound(torch.tensor([2.0, 1.0]), torch.zeros(2)).tolist()  # balanced layers are aligned
        [0.0, 0.0]
    """
    c, h = imbalance_spectrum, imbalance_spectrum.shape[-1]
    blocks = [[k] for k in range(h)] if blocks is None else [[int(k) for k in block] for block in blocks]
    if [k for block in blocks for k in block] != list(range(h)) or not all(blocks):
        raise ValueError(f"blocks are {blocks}; they must cut 0, ..., {h - 1} into runs, in order")
    p = _pad(product_singular_values, h)
    gamma, g = c.abs().amax(-1, keepdim=True), (c.amax(-1, keepdim=True) - c.amin(-1, keepdim=True)) / 2
    q = torch.sqrt(p.square() + gamma.square() / 4)
    # q_k - q_{k+1}, by the difference of squares: q itself has lost the digits of p when gamma is large.
    steps = (p[..., :-1] - p[..., 1:]) * (p[..., :-1] + p[..., 1:]) / (q[..., :-1] + q[..., 1:])
    steps = torch.where(p[..., :-1] > p[..., 1:], steps, 0.0)  # and not 0 / 0 where two values and C are 0
    edge = torch.full_like(g, math.inf)
    steps = torch.cat([edge, steps, edge], dim=-1)
    above, below = steps[..., [block[0] for block in blocks]], steps[..., [block[-1] + 1 for block in blocks]]
    separation = torch.minimum(above, below) - g
    return torch.where(separation > 0, g / separation, math.inf)


def _check_adjacent(w1: Tensor, w2: Tensor) -> None:
    if w1.shape[-2] != w2.shape[-1]:
        raise ValueError(
            f"layers of shape {tuple(w1.shape)} and {tuple(w2.shape)} are not adjacent; "
            "w1's outputs must be w2's inputs"
        )


def _share_in_blocks(a: Tensor, s1: Tensor, s2: Tensor, gap: float) -> float:
    """Share of A, of the frames of two layers with these singular values, in its diagonal blocks."""
    k = min(a.shape)
    inside = sum(a[block][:, block].square().sum() for block in _blocks(s1[:k], s2[:k], gap))
    return float(inside) / k


def _blocks(s1: Tensor, s2: Tensor, gap: float) -> list[list[int]]:
    """Cut the indices wherever both layers' singular values differ by more than `gap` times their largest."""
    if not 0 <= gap < 1:
        raise ValueError(f"gap is {gap}; it is a share of the largest singular value, at least 0 and below 1")
    separated = (s1[:-1] - s1[1:] > gap * s1[0]) & (s2[:-1] - s2[1:] > gap * s2[0])
    edges = [0, *(int(i) + 1 for i in separated.nonzero().flatten()), len(s1)]
    return [list(range(i, j)) for i, j in itertools.pairwise(edges)]


def _block_labels(blocks: list[list[int]]) -> list[int]:
    return [label for label, block in enumerate(blocks) for _ in block]


def _matching(squares: Tensor, blocks: list[list[int]]) -> tuple[list[int], float]:
    """Best row of A for each column, and the share of |A|^2 on it, both blind to rotations inside blocks."""
    # The mass between two blocks is spread evenly over the pairs that can be matched there, at most min(sizes).
    score = torch.empty_like(squares)
    for rows in blocks:
        for columns in blocks:
            block = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            score[block] = squares[block].sum() / min(len(rows), len(columns))
    columns, rows = linear_sum_assignment(score.T.cpu().numpy(), maximize=True)
    share = float(score[rows, columns].sum()) / len(squares)
    # Ties inside blocks are broken by order, not by round-off.
    label, unused = _block_labels(blocks), [iter(block) for block in blocks]
    matched = [partner for block in blocks for partner in sorted(label[rows[k]] for k in block)]
    return [next(unused[partner]) for partner in matched], share


def _pad(values: Tensor, size: int) -> Tensor:
    """The first `size` of descending values, with zeros for missing ones."""
    return torch.nn.functional.pad(values, (0, size - values.shape[-1]))
