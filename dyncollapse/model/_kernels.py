"""Fast forms of formulas that stand readable in `losses`, `covariance` and `objective`.

Nothing here is a new statement: tests/model/test_kernels.py holds each form equal to its formula.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.precision import common_precision, exact_product, inside_autocast, outside_autocast

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]

LOG2_E = 1 / math.log(2)
# Bytes of softmax weights in one call, as in 64 batches or runs of 128 pairs in float32. Measured per run and step, 64
# such runs take as long as 16, and half as long as one (docs/results.md).
MOST_BYTES = 2**22
# Widest matrices, and numbers in the views of a batch, up to which compiled forces were measured to be faster.
WIDEST, MOST_NUMBERS = 64, 2**16
# Softmax weights for which one more thread of Python pays: they take about a millisecond, it a tenth of that to start.
WORTH_STARTING = 2**18
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

    Not to be differentiated.
    """
    if is_compiled(product.shape[-2], x):
        return compiled_mean("infonce_forces", product, x, x_pos, one_sided)
    return mean_over_groups(partial(_force, one_sided=one_sided), product, x, x_pos)


def is_compiled(m: int, x: Tensor) -> bool:
    """Whether batches are small enough for `_forces_compiled`, where larger ones need PyTorch's products or a GPU."""
    n, d = x.shape[-2:]
    return x.device.type == "cpu" and max(m, d) <= WIDEST and n * max(m, d) <= MOST_NUMBERS and min(n, m, d) > 0


@torch.no_grad()
def compiled_mean(name: str, product: Tensor, x: Tensor, x_pos: Tensor, *settings: float) -> Tensor:
    """Average the forces that a function of `_forces_compiled` finds on each batch; arguments as of `mean_over_groups`.

    Args:
        name: The function's name.
        product: P.
        x: Anchors.
        x_pos: Positives.
        *settings: What else the function takes.

    Returns:
        One force per run.
    """
    dtype = common_precision((product.dtype, x.dtype))
    lead = _lead(product, x)
    p, *views = (t.detach().to(dtype) for t in (product, x, x_pos))
    flat = [_flat(p, lead if p.ndim > 2 else (1,)), *(_flat(view, lead) for view in views)]
    found = compiled(name, [t.contiguous().numpy() for t in flat], settings, (x.shape[-1], x.shape[-1]))
    forces = torch.from_numpy(found)
    return mean_over_batches(forces if len(lead) == 1 else forces.view(*lead, *forces.shape[1:]), product.ndim)


def compiled(
    name: str, arrays: Sequence[np.ndarray], settings: tuple[float, ...], shape: tuple[int, ...] = ()
) -> np.ndarray:
    """Call a function of `_forces_compiled` on many batches, by as many threads as PyTorch has where that pays.

    Args:
        name: The function's name.
        arrays: P (b, m, d), or (1, m, d) for all batches, and both views (b, n, d).
        settings: What else it takes.
        shape: Of what it finds for each batch.

    Returns:
        That, in an array (b, *shape).
    """
    from dyncollapse.model import _forces_compiled  # with numba, which other losses do without

    count, n, _ = arrays[1].shape
    found = np.empty((count, *shape), arrays[1].dtype)
    call = partial(_call_on_batches, getattr(_forces_compiled, name), arrays, settings, found)
    parts = min(torch.get_num_threads(), count, count * n**2 // WORTH_STARTING)
    if parts < 2:
        call(slice(None))
    else:
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(call, (slice(i * count // parts, (i + 1) * count // parts) for i in range(parts))))
    return found


def _call_on_batches(
    kernel: Callable[..., None], arrays: Sequence[np.ndarray], settings: tuple[float, ...], out: np.ndarray, rows: slice
) -> None:
    p, x, x_pos = arrays
    kernel(p if len(p) < len(out) else p[rows], x[rows], x_pos[rows], *settings, out[rows])


def _lead(product: Tensor, x: Tensor) -> tuple[int, ...]:
    """The axes of batches and of runs, broadcast."""
    lead: tuple[int, ...] = x.shape[:-2]
    # The same function of PyTorch imports sympy.
    return lead if product.shape[:-2] == lead else np.broadcast_shapes(product.shape[:-2], lead)


def _flat(matrices: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Matrices of every batch and run, with one axis in front."""
    if matrices.ndim == 3 and matrices.shape[:-2] == lead:
        return matrices
    return matrices.expand(*lead, *matrices.shape[-2:]).reshape(-1, *matrices.shape[-2:])


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
    lead = _lead(product, x)
    product, x, x_pos = (_flat(t, lead) for t in (product, x, x_pos))
    size = len(x) if x.is_cuda else fitting(MOST_BYTES, x.itemsize * x.shape[-2] ** 2)
    made = [kernel(*part) for part in cut(size, product, x, x_pos)]
    joined = made[0] if len(made) == 1 else torch.cat(made)
    return joined if len(lead) == 1 else joined.view(*lead, *joined.shape[1:])


def _force(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> Float[Tensor, "b d d"]:
    """X = H + H^T with 2 n H = x^T (r x - 2 B y) + y^T c y - s^T r s: shifts s, row sums r and column sums c of B.

    Anchors, shifts and negatives lie in one array, so that one product embeds them and one gives H.
    """
    n = x.shape[-2]
    anchors, shift = x - x.mean(-2, keepdim=True), x_pos - x
    points = torch.cat([anchors, shift] if one_sided else [anchors, shift, anchors + shift], -2)
    z, moved, *rest = (points @ product.mT).split(n, -2)
    b, r = negative_weights(force_logits(z, moved, rest[0] if rest else z))
    y, c = points[:, -n:] if rest else anchors, b.sum(-2).unsqueeze(-1)
    weights = torch.cat([r, -r, c] if rest else [r + c, -r], -2).mul_(0.5 / n)
    weighted = points * weights
    weighted[:, :n].sub_(thin_product(b, y), alpha=1 / n)
    h = torch.bmm(points.mT, weighted)
    return h + h.mT
