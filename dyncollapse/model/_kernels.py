"""Fast forms of formulas that stand readable in `losses`, `covariance` and `objective`.

Nothing here is a new statement: tests/model/test_kernels.py holds each form equal to its formula.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.precision import common_precision, exact_product, inside_autocast, outside_autocast

LOG2_E = 1 / math.log(2)
# Bytes of softmax weights in one call, as in 64 batches or runs of 128 pairs in float32. Measured per run and step, 64
# such runs take as long as 16, and half as long as one (docs/results.md).
MOST_BYTES = 2**22
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
    """Return b y for a large b and few columns.

    A CPU multiplies few rows up to 2.5 times as fast as few columns. The exception is float32 with FEW_COLUMNS or more.
    """
    if y.dtype == torch.float32 and y.shape[-1] >= FEW_COLUMNS:
        return exact_product(b, y)
    return exact_product(y.mT, b.mT).mT


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

    Takes some batches or runs at a time, so that their n x n arrays fit a cache. Not to be differentiated.
    """
    groups = batch_groups(x, x_pos, product.ndim)
    forces = [mean_over_batches(_by_runs(product, a, b, one_sided), product.ndim) for _, a, b in groups]
    if len(forces) == 1:
        return forces[0]
    return torch.stack([share * force for (share, _, _), force in zip(groups, forces, strict=True)]).sum(0)


def batch_groups(x: Tensor, x_pos: Tensor, ndim: int) -> list[tuple[float, Tensor, Tensor]]:
    """Split views along the axes in front of the last `ndim`, so that a group's softmax weights fit a cache.

    Returns the share of all batches, the anchors and the positives of each group, with one batch axis.
    """
    extra = x.ndim - ndim
    if extra <= 0:
        return [(1.0, x, x_pos)]
    anchors, positives = x.flatten(0, extra - 1), x_pos.flatten(0, extra - 1)
    size = fitting(anchors.shape[1:], anchors.itemsize)
    groups = zip(anchors.split(size), positives.split(size), strict=True)
    return [(len(a) / len(anchors), a, b) for a, b in groups]


def mean_over_batches(values: Tensor, ndim: int) -> Tensor:
    """Average over the axes in front of the last `ndim`."""
    extra = values.ndim - ndim
    return values.mean(dim=tuple(range(extra))) if extra > 0 else values


def fitting(shape: torch.Size, itemsize: int) -> int:
    """How many arrays of softmax weights, for anchors of shape (*batches, n, d) each, fit MOST_BYTES; at least 1."""
    return max(1, MOST_BYTES // (itemsize * math.prod(shape[:-1]) * shape[-2]))


def _by_runs(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> Tensor:
    """The force of each batch, of as many runs at a time as fit a CPU's cache."""
    alike = product.ndim > 2 and product.shape[:-2] == x.shape[:-2]
    if product.is_cuda or not alike or len(x) <= (size := fitting(x.shape[1:], product.itemsize)):
        return _force(product, x, x_pos, one_sided)
    parts = zip(*(tensor.split(size) for tensor in (product, x, x_pos)), strict=True)
    return torch.cat([_force(p, a, b, one_sided) for p, a, b in parts])


def _force(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> Tensor:
    if product.itemsize < 4:
        dtype = common_precision((product.dtype, x.dtype))
        product, x, x_pos = product.to(dtype), x.to(dtype), x_pos.to(dtype)
    total = x.sum(dim=-2, keepdim=True)
    shift, x = x_pos - x, torch.sub(x, total, alpha=1 / x.shape[-2])
    columns = product.detach().mT
    z, z_shift = matrix_product(x, columns), matrix_product(shift, columns)
    y, z_negative = (x, z) if one_sided else (x + shift, z + z_shift)
    b, r = negative_weights(force_logits(z, z_shift, z_negative))
    half = add_product(_half_of_data(x, b, r, y), shift.mT, r * shift, 1, -0.5 / x.shape[-2])
    return half + half.mT


def _half_of_data(x: Tensor, b: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """H with Sigma0 = H + H^T: n H = x^T (r x / 2 - B y) + y^T c y / 2 with the column sums c, or its transpose.

    The order of the products is that of `thin_product`.
    """
    column_sums, share = b.sum(-2).unsqueeze(-1), 1 / x.shape[-2]
    own = (r + column_sums) * x if y is x else r * x
    if x.dtype == torch.float32 and x.shape[-1] >= FEW_COLUMNS:
        h = matrix_product(x.mT, add_product(own, b, y, share / 2, -share))
    else:
        h = matrix_product(add_product(own.mT, y.mT, b if y is x else b.mT, share / 2, -share), x)
    return h if y is x else h + exact_product(y.mT, column_sums * y * (share / 2))
