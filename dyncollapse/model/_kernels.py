"""Fast forms of formulas that stand readable in `losses`, `covariance` and `objective`.

Nothing here is a new statement: tests/model/test_kernels.py holds each form equal to its formula.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dyncollapse.model.precision import common_precision, exact_product, inside_autocast, outside_autocast

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]

LOG2_E = 1 / math.log(2)
# Bytes of softmax weights in one call, as in 64 batches or runs of 128 pairs in float32. Measured per run and step, 64
# such runs take as long as 16, and half as long as one (docs/results.md).
MOST_BYTES = 2**22
# Bytes of exponentials that are computed, used and then overwritten by the next ones: 2 MiB, as a core's own cache on
# many server processors. Less costs more calls, for which threads wait: with 1 MiB two threads take 4 % longer, with
# 512 KiB 9 % (docs/results.md).
CACHED_BYTES = 2**21
# Columns from which float32 products are as fast with few columns as with few rows (docs/results.md).
FEW_COLUMNS = 16


def add_product(
    base: Float[Tensor, "... #b #n"],
    a: Float[Tensor, "... b m"],
    b: Float[Tensor, "... m n"],
    beta: float,
    alpha: float,
) -> Float[Tensor, "... b n"]:
    """Return beta base + alpha a b, in one pass over the result where PyTorch has a kernel for it."""
    runs = a.shape[:-2]
    if inside_autocast() or not runs or runs != b.shape[:-2] or runs != base.shape[:-2]:
        return beta * base + alpha * exact_product(a, b)
    if len(runs) > 1:
        a, b, base = (matrix.flatten(0, -3) for matrix in (a, b, base))
    product = torch.baddbmm(base, a, b, beta=beta, alpha=alpha)
    return product.unflatten(0, runs) if len(runs) > 1 else product


def matrix_product(a: Float[Tensor, "... b m"], b: Float[Tensor, "... m n"]) -> Float[Tensor, "... b n"]:
    """Return a b by bmm where it applies: matmul's handling of shapes would be a tenth of a single run's step."""
    if a.ndim == b.ndim == 3 and a.shape[0] == b.shape[0] and not inside_autocast():
        return torch.bmm(a, b)
    return exact_product(a, b)


def thin_product(b: Float[Tensor, "*runs n k"], y: Float[Tensor, "*runs k d"]) -> Float[Tensor, "*runs n d"]:
    """Return b y for a large b and few columns, transposed in memory where that is faster."""
    return exact_product(b, y) if multiplies_columns(y) else exact_product(y.mT, b.mT).mT


def multiplies_columns(y: Float[Tensor, "*runs k d"]) -> bool:
    """Whether a CPU multiplies a large b by y as fast as y^T by b^T: else up to 2.5 times slower."""
    return y.dtype == torch.float32 and y.shape[-1] >= FEW_COLUMNS


def thin_array(like: Float[Tensor, "b k d"], n: int) -> Float[Tensor, "b n d"]:
    """Return an empty array for `thin_product`'s results."""
    count, _, d = like.shape
    return like.new_empty(count, n, d) if multiplies_columns(like) else like.new_empty(count, d, n).mT


def distance_logits(
    z: Float[Tensor, "*runs b m"], y: Float[Tensor, "*runs n m"], squares: Float[Tensor, "*runs n"] | None = None
) -> Float[Tensor, "*runs b n"]:
    """Logits -|z_i - y_j|^2 / 2 up to the row constant |z_i|^2 / 2, from one matrix product.

    Round-off is of the order eps max|z|^2; rows should be centred. `squares` are |y_j|^2, where they are known.
    """
    squares = y.square().sum(-1) if squares is None else squares
    return add_product(squares.unsqueeze(-2), z, y.mT, -0.5, 1)


def force_logits(
    z: Float[Tensor, "*runs n m"], shift: Float[Tensor, "*runs n m"], y: Float[Tensor, "*runs n m"]
) -> Float[Tensor, "*runs n n"]:
    """`losses.infonce_logits` of centred anchors, z' - z and negatives less the anchors' centre."""
    squares, shifts = z.square().sum(-1), shift.square().sum(-1)
    logits = distance_logits(z, y, squares if y is z else None)
    if y is z:  # the product has |z_i|^2 / 2 on its diagonal already
        logits.diagonal(dim1=-2, dim2=-1).sub_(shifts, alpha=0.5)
    else:
        logits.diagonal(dim1=-2, dim2=-1).copy_((squares - shifts) / 2)
    return logits


def negative_weights(
    logits: Float[Tensor, "*runs b n"], first: int = 0
) -> tuple[Float[Tensor, "*runs b n"], Float[Tensor, "*runs b 1"]]:
    """Return B, the softmax weights with zeros for the positives, and the sum 1 - alpha_ii of each of its rows.

    Overwrites the logits; not to be differentiated. The positive of row i is column first + i. The sums are those of B
    itself: 1 - alpha_ii would lose all digits once the embeddings separate.
    """
    if logits.is_cuda:
        b = torch.softmax(logits, dim=-1, out=logits)
        b.diagonal(first, -2, -1).zero_()
        return b, b.sum(-1, keepdim=True)
    # A CPU takes powers of 2 two to four times as fast as powers of e.
    largest = logits.amax(-1, keepdim=True)
    if largest.numel() and largest.abs().max().item() * torch.finfo(logits.dtype).eps > 1:
        b = logits.sub_(largest).mul_(LOG2_E).exp2_()  # the difference of their products could overflow by round-off
    else:
        b = torch.add(largest.mul_(-LOG2_E), logits, alpha=LOG2_E, out=logits).exp2_()
    own = b.diagonal(first, -2, -1)
    positive = own.unsqueeze(-1).clone()
    own.zero_()
    r = b.sum(-1, keepdim=True)
    share = (r + positive).reciprocal_()
    return b.mul_(share), r.mul_(share)


@outside_autocast
def infonce_forces(
    product: Float[Tensor, "*runs m d"],
    x: Float[Tensor, "*batches n d"],
    x_pos: Float[Tensor, "*batches n d"],
    one_sided: bool,
) -> Float[Tensor, "*runs d d"]:
    """Return `objective.infonce_force`, averaged over the batch axes that stand in front of the runs' axes.

    Takes some batches or runs at a time, so that their arrays fit a cache. Not to be differentiated.
    """
    # A GPU would have to wait for the check of the fast sums.
    return mean_over_groups(partial(_force, one_sided=one_sided, safe=x.is_cuda), product, x, x_pos)


@outside_autocast
@torch.no_grad()
def mean_over_groups(
    kernel: Kernel, product: Float[Tensor, "*runs m d"], x: Float[Tensor, "*batches n d"], x_pos: Tensor
) -> Tensor:
    """Average what a kernel makes of P and each batch, of as many batches or runs at a time as fit a cache.

    Args:
        kernel: Of P (b, m, d) and both views (b, n, d) of as many batches: one matrix per batch.
        product: P. Half precision is widened.
        x: Anchors (*batches, *runs, n, d).
        x_pos: Positives.

    Returns:
        One matrix per run, in float32 at least.
    """
    dtype = common_precision((product.dtype, x.dtype))
    p, x, x_pos = product.to(dtype), x.to(dtype), x_pos.to(dtype)
    groups = batch_groups(x, x_pos, p.ndim)
    means = [mean_over_batches(_by_batches(kernel, p, a, b), p.ndim) for _, a, b in groups]
    if len(means) == 1:
        return means[0]
    return torch.stack([share * mean for (share, _, _), mean in zip(groups, means, strict=True)]).sum(0)


def batch_groups(x: Tensor, x_pos: Tensor, ndim: int) -> list[tuple[float, Tensor, Tensor]]:
    """Split views along the axes in front of the last `ndim`, so that a group's softmax weights fit a cache.

    Returns the share of all batches, the anchors and the positives of each group, with one batch axis.
    """
    extra = x.ndim - ndim
    if extra <= 0:
        return [(1.0, x, x_pos)]
    anchors, positives = x.flatten(0, extra - 1), x_pos.flatten(0, extra - 1)
    size = fitting(MOST_BYTES, anchors.itemsize * math.prod(anchors.shape[1:-1]) * anchors.shape[-2])
    groups = zip(anchors.split(size), positives.split(size), strict=True)
    return [(len(a) / len(anchors), a, b) for a, b in groups]


def mean_over_batches(values: Tensor, ndim: int) -> Tensor:
    """Average over the axes in front of the last `ndim`."""
    extra = values.ndim - ndim
    return values.mean(dim=tuple(range(extra))) if extra > 0 else values


def fitting(most: int, each: int) -> int:
    """How many things of `each` bytes fit `most`; at least 1."""
    return max(1, most // max(1, each))


def cut(size: int, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Cut tensors of one length into parts of at most `size` rows."""
    if len(tensors[0]) <= size:  # the calls of `split` would be a tenth of a single run's step
        return (tensors,)
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _by_batches(kernel: Kernel, product: Tensor, x: Tensor, x_pos: Tensor) -> Tensor:
    """What the kernel makes of each batch. Axes of batches and of runs are broadcast and taken as one."""
    lead: tuple[int, ...] = x.shape[:-2]
    if len(lead) != 1 or product.shape[:-2] != lead:
        lead = np.broadcast_shapes(product.shape[:-2], lead)  # the same function of PyTorch imports sympy
        product, x, x_pos = (t.expand(*lead, *t.shape[-2:]).reshape(-1, *t.shape[-2:]) for t in (product, x, x_pos))
    size = len(x) if x.is_cuda else fitting(MOST_BYTES, x.itemsize * x.shape[-2] ** 2)
    made = [kernel(*part) for part in cut(size, product, x, x_pos)]
    joined = made[0] if len(made) == 1 else torch.cat(made)
    return joined if len(lead) == 1 else joined.view(*lead, *joined.shape[1:])


def _force(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool, safe: bool) -> Float[Tensor, "b d d"]:
    """X = H + H^T with 2 n H = x^T (r x - 2 B y) + y^T c y - s^T r s: shifts s, row sums r and column sums c of B.

    Anchors, shifts and negatives lie in one array, so that one product embeds them and one gives H.
    """
    count, n, d = x.shape
    parts = 2 if one_sided else 3
    points = thin_array(x, parts * n)
    anchors, shift, *rest = points.view(count, parts, n, d).unbind(1)
    torch.sub(x, x.sum(-2, keepdim=True), alpha=1 / n, out=anchors)
    torch.sub(x_pos, x, out=shift)
    y = torch.add(anchors, shift, out=rest[0]) if rest else anchors
    z = torch.bmm(product, points.mT).view(count, -1, parts, n)
    sums, share, c, ey = safe_sums(z, y) if safe else _sums(z, y)
    r = sums * share
    weights = torch.cat([r, -r, c] if rest else [r + c, -r], -1).mul_(0.5 / n)
    weighted = points * weights.unsqueeze(-1)
    weighted[:, :n].addcmul_(ey, share.unsqueeze(-1), value=-1 / n)
    h = torch.bmm(points.mT, weighted)
    force = h + h.mT
    if not safe and (failed := _inexact(sums, share, r)) is not None:
        force[failed] = _force(product[failed], x[failed], x_pos[failed], one_sided, safe=True)
    return force


def _sums(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of B, which has the rows of E = exp(logits) without the positives, each over its sum with the positive.

    Logits -|z_i - y_j|^2 / 2 are at most 0, so their exponentials cannot overflow, and subtracting the maximum of each
    row would be two passes more over E. Another is saved by dividing E y, and not E, by the sums of its rows. The price
    are anchors whose positive and negatives are all so far away that exponentials underflow: see `_inexact`.

    Args:
        z: Embeddings (b, m, parts, n) of anchors, shifts and, two-sided, negatives.
        y: Negatives (b, n, d).

    Returns:
        Row sums of E (b, n), one over the sums with the positives, column sums of B, and E y (b, n, d).
    """
    n = y.shape[-2]
    squares = z.square().sum(1).mul_(-LOG2_E / 2).unbind(1)
    share, sums, c = squares[1].exp2_(), *y.new_empty(2, *y.shape[:-1]).unbind()
    ey, columns = thin_array(y, n), multiplies_columns(y)
    size, last = fitting(CACHED_BYTES, y.itemsize * n**2), -1 if len(squares) > 2 else 0
    array = y.new_empty(min(size, len(y)), n, n)
    parts = (z[:, :, 0].mT, z[:, :, last], squares[0].unsqueeze(-1), squares[last].unsqueeze(-2), y, share, sums, c, ey)
    for anchors, negatives, of_rows, of_columns, y_i, share_i, sums_i, c_i, ey_i in cut(size, *parts):
        e = torch.add(of_rows, of_columns, out=array[: len(y_i)])
        e.baddbmm_(anchors, negatives, alpha=LOG2_E).exp2_()
        e.diagonal(0, -2, -1).zero_()
        torch.sum(e, -1, out=sums_i)
        share_i.add_(sums_i).reciprocal_()
        torch.bmm(share_i.unsqueeze(1), e, out=c_i.unsqueeze(1))
        if columns:
            torch.bmm(e, y_i, out=ey_i)
        else:
            torch.bmm(y_i.mT, e.mT, out=ey_i.mT)
    return sums, share, c, ey


def safe_sums(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_sums` for any distances, with B for E."""
    anchors, shift, *rest = (part.mT for part in z.unbind(2))
    b, r = negative_weights(force_logits(anchors, shift, rest[0] if rest else anchors))
    r = r.squeeze(-1)
    return r, torch.ones_like(r), b.sum(-2), thin_product(b, y)


def _inexact(
    sums: Float[Tensor, "b n"], share: Float[Tensor, "b n"], r: Float[Tensor, "b n"]
) -> Int64[Tensor, " failed"] | None:
    """Batches that `safe_sums` computes better: exponentials underflowed in a row whose softmax has a small sum.

    B then lacks up to n times the smallest normal number, over that sum. This is below the round-off of the largest r
    where every row's sum is large enough, and otherwise compared. Where the sums of the softmax are not small, the safe
    way loses as much. Sums beyond n come from logits far above 1 in size, whose round-off has made them positive.

    Args:
        sums: Row sums over the negatives, before they are divided.
        share: One over the sums of the softmax.
        r: Their product.

    Returns:
        Their numbers, None where there are none.
    """
    if not sums.numel():
        return None
    n, kind = sums.shape[-1], torch.finfo(sums.dtype)
    least, most = n * kind.tiny / kind.eps, 2.0 * n
    low, high = sums.aminmax()
    if low.item() >= least and high.item() <= most:  # false for NaN, too
        return None
    largest = share.amax(-1)
    exact = (sums.amax(-1) <= most) & ((largest <= 2) | (r.amax(-1) >= least * largest))
    failed = (~exact).nonzero().squeeze(-1)
    return failed if len(failed) else None
