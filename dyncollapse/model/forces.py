"""The force X of a linear network under a batch, dL/dP = -P X (Lemma 2 for every loss of FORCED), and its change.

These losses are blind to rotations of the embedding, so their gradient is P times a symmetric matrix of the inputs. A
network with biases is one with a further input that is always 1, whose column of P is the offset;
`dyncollapse.model.pullback` appends it.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import (
    batch_groups,
    compiled_mean,
    infonce_forces,
    is_compiled,
    matrix_product,
    mean_over_batches,
    mean_over_groups,
)
from dyncollapse.model.covariance import contrastive_covariance
from dyncollapse.model.loss_gradients import divisor, dot_base_2, exponentials, infonce_base_2, two_directions
from dyncollapse.model.losses import infonce_weights, normalised
from dyncollapse.model.moment_losses import Along, barlow_along, vcreg_along
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import common_precision, outside_autocast

MakeAlong = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Along]]

FORCED = ("infonce", "dot", "ntxent", "spectral", "vcreg", "barlow")
"""The named losses that depend on inner products or covariances alone, so that they have a force X."""

COMPILED = ("infonce", "dot")
"""Those whose force is compiled for small batches on a CPU."""


@outside_autocast
def infonce_force(product: Float[Tensor, "... m d"], pairs: Pairs) -> Float[Tensor, "... d d"]:
    """X of Lemma 2 on each batch, with dL/dP = -P X under Eq. 2.

    Args:
        product: End-to-end matrices P.
        pairs: Views (*batches, n, d), whose batch axes end with the runs' axes.

    Returns:
        One force per batch, in float32 at least.

    References:
        Jing et al. 2022, Lemmas 1 and 2.

    Examples:
        >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        >>> float(infonce_force(torch.zeros(1, 1), pairs))  # 2 from the data less 0.5 from the augmentation
        1.5
    """
    dtype = common_precision((product.dtype, pairs.anchor.dtype))
    product, x, x_pos = product.to(dtype), pairs.anchor.to(dtype), pairs.positive.to(dtype)
    z, z_pos = x @ product.mT, x_pos @ product.mT
    y, z_negative = (x, z) if pairs.views == "one-sided" else (x_pos, z_pos)
    return contrastive_covariance(x, x_pos, infonce_weights(z, z_pos, z_negative), y).force


def mean_force(
    product: Float[Tensor, "*runs m d"], pairs: Pairs, loss: str = "infonce", constant: float | None = None
) -> Float[Tensor, "*runs d d"]:
    """X of a named loss, averaged over the batch axes in front of the runs', fast and not to be differentiated.

    Args:
        product: End-to-end matrices P.
        pairs: Views (*batches, *runs, n, d).
        loss: Its name.
        constant: The temperature of dot and ntxent, the weight of vcreg's invariance.

    Returns:
        One force per run.
    """
    one_sided = pairs.views == "one-sided"
    if loss == "infonce":
        mean = infonce_forces(product, pairs.anchor, pairs.positive, one_sided=one_sided)
    elif loss == "dot" and is_compiled(product.shape[-2], pairs.anchor):
        assert constant is not None
        mean = compiled_mean("dot_forces", product, pairs.anchor, pairs.positive, one_sided, float(constant))
    else:
        make = _along_of(loss, constant, pairs.views)
        mean = mean_over_groups(lambda p, x, x_pos: make(p, x, x_pos)[0], product, pairs.anchor, pairs.positive)
    return mean.to(product.dtype)


def _along_of(
    loss: str, constant: float | None, views: str
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Along]]:
    """The function of P and both views that returns X and its derivative, for a loss of FORCED."""
    one_sided = views == "one-sided"
    if loss == "infonce":
        return partial(_infonce_along, one_sided=one_sided)
    if loss == "spectral":
        return partial(_spectral_along, one_sided=one_sided)
    if loss == "barlow":
        return barlow_along
    assert constant is not None
    if loss == "vcreg":
        return partial(vcreg_along, views=views, invariance=constant)
    if loss == "ntxent":
        return partial(_ntxent_along, temperature=constant)
    return partial(_dot_along, one_sided=one_sided, temperature=constant)


def mean_force_along(
    product: Float[Tensor, "*runs m d"], pairs: Pairs, loss: str, constant: float | None = None
) -> tuple[Float[Tensor, "*runs d d"], Along]:
    """X, and its derivative along any change of P, both averaged over the batch axes in front of the runs'.

    Args:
        product: End-to-end matrices P.
        pairs: Views (*batches, *runs, n, d).
        loss: Its name.
        constant: The temperature of dot and ntxent, the weight of vcreg's invariance.

    Returns:
        X (*runs, d, d), and the function from dP (*runs, m, d) to dX. It keeps what does not depend on dP, for the
        losses with softmax weights those of all batches, n x n numbers each: a second direction costs no exponentials.
    """
    make = _along_of(loss, constant, pairs.views)
    groups = batch_groups(pairs.anchor, pairs.positive, product.ndim)
    parts = [(share, *make(product, x, x_pos)) for share, x, x_pos in groups]

    def along(change: Tensor) -> Tensor:
        return sum_of([share * mean_over_batches(of(change), product.ndim) for share, _, of in parts])

    return sum_of([share * mean_over_batches(force, product.ndim) for share, force, _ in parts]), along


def sum_of(tensors: list[Tensor]) -> Tensor:
    """Sum of tensors of one shape."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).sum(0)


def _embedded(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z, z', and the negatives' inputs y and embeddings."""
    z, z_pos = x @ product.mT, x_pos @ product.mT
    return (z, z_pos, x, z) if one_sided else (z, z_pos, x_pos, z_pos)


def _symmetric(half: Tensor, rate: float) -> Tensor:
    return (half + half.mT).mul_(rate)


def _dot_half(left: Tensor, b: Tensor, y: Tensor, x: Tensor, pull: Tensor) -> Tensor:
    """M = x^T B y - x^T diag(r) x', with X = -(M + M^T) / (n tau): linear in the weights."""
    return matrix_product(matrix_product(left.mT, b), y) - matrix_product(x.mT, pull)


def _dot_along(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool, temperature: float) -> tuple[Tensor, Along]:
    z, z_pos, y, z_negative = _embedded(product, x, x_pos, one_sided)
    e, share, r = exponentials(dot_base_2(z, z_pos, z_negative, temperature, replaced=one_sided))
    b, rate = e.mul_(share), -1 / (x.shape[-2] * temperature)

    def along(change: Tensor) -> Tensor:
        dz, dz_pos, _, dz_negative = _embedded(change, x, x_pos, one_sided)
        positive = _dots(dz, z_pos) + _dots(z, dz_pos)
        db, dr = _weights_along(b, _tilt([dz, z], [z_negative, dz_negative], positive, 1 / temperature))
        return _symmetric(_dot_half(x, db, y, x, dr * x_pos), rate)

    return _symmetric(_dot_half(x, b, y, x, r * x_pos), rate), along


def _infonce_along(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> tuple[Tensor, Along]:
    centre = x.mean(-2, keepdim=True)
    x, x_pos, shift = x - centre, x_pos - centre, x_pos - x  # only differences matter
    z, z_pos, y, z_negative = _embedded(product, x, x_pos, one_sided)
    e, share, r = exponentials(infonce_base_2(z, z_pos, None if one_sided else z_pos))
    b, rate = e.mul_(share), 1 / x.shape[-2]

    def half(b: Tensor, r: Tensor) -> Tensor:
        """Half of Lemma 2's X, linear in the weights: (x^T r x + y^T c y - (x' - x)^T r (x' - x)) / 2 - x^T B y."""
        own = matrix_product(x.mT, r * x) - matrix_product(shift.mT, r * shift)
        own = own + matrix_product(y.mT, b.sum(-2).unsqueeze(-1) * y)
        return own / 2 - matrix_product(matrix_product(x.mT, b), y)

    def along(change: Tensor) -> Tensor:
        dz, dz_pos, _, dz_negative = _embedded(change, x, x_pos, one_sided)
        # Logits are -|z_i - y_j|^2 / 2, up to the row constant |z_i|^2 / 2.
        positive = _dots(z, dz) - _dots(z - z_pos, dz - dz_pos)
        down = -_dots(z_negative, dz_negative)
        tilt = _tilt([dz, z, torch.ones_like(positive)], [z_negative, dz_negative, down], positive)
        return _symmetric(half(*_weights_along(b, tilt)), rate)

    return _symmetric(half(b, r), rate), along


def _tilt(left: list[Tensor], right: list[Tensor], positive: Tensor, scale: float = 1.0) -> Tensor:
    """Changes of the logits, sums of left_i . right_j, less those of the positives, all times `scale`: by one product.

    Against the positive's own change, the mean of a row's changes is a sum over negatives, which keeps its digits where
    the positive has nearly all of the weight.
    """
    runs = [np.broadcast_shapes(*(part.shape[:-1] for part in parts)) for parts in ([*left, positive], right)]
    rows, columns = (
        torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)
        for parts, shape in zip(([*left, -positive], [*right, torch.ones_like(right[0][..., :1])]), runs, strict=True)
    )
    return matrix_product(rows.mul_(scale), columns.mT)


def _weights_along(b: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of B and of its row sums with those of the logits against the positives', which are overwritten."""
    db = tilt.mul_(b)
    db = db.addcmul_(b, db.sum(-1, keepdim=True), value=-1)
    return db, db.sum(-1, keepdim=True)


def _ntxent_along(product: Tensor, x: Tensor, x_pos: Tensor, temperature: float) -> tuple[Tensor, Along]:
    """X = -(M + M^T), M = x^T G x' - (x^T diag(a) x + x'^T diag(a') x') / 2 of inputs over their embeddings' lengths.

    G is the derivative of the loss with respect to the cosines, a and a' are the row and column sums of G times these.
    """
    z, z_pos = x @ product.mT, x_pos @ product.mT
    unit, unit_pos, length, length_pos = normalised(z), normalised(z_pos), divisor(z), divisor(z_pos)
    x_unit, x_unit_pos, rate = x / length, x_pos / length_pos, 1 / (2 * x.shape[-2] * temperature)
    b, r, back, back_r = two_directions(unit, unit_pos, temperature)
    g = _cosine_slope(b + back.mT, r + back_r, rate)
    pull, pull_pos = matrix_product(g, unit_pos), matrix_product(g.mT, unit)

    def half(g: Tensor, own: Tensor, own_pos: Tensor) -> Tensor:
        across = matrix_product(matrix_product(x_unit.mT, g), x_unit_pos)
        return (
            across - (matrix_product(x_unit.mT, own * x_unit) + matrix_product(x_unit_pos.mT, own_pos * x_unit_pos)) / 2
        )

    own, own_pos = _dots(unit, pull), _dots(unit_pos, pull_pos)

    def along(change: Tensor) -> Tensor:
        dz, dz_pos = x @ change.mT / length, x_pos @ change.mT / length_pos
        stretch, stretch_pos = _dots(unit, dz), _dots(unit_pos, dz_pos)  # relative changes of the lengths
        turn, turn_pos = dz - unit * stretch, dz_pos - unit_pos * stretch_pos
        positive = _dots(turn, unit_pos) + _dots(unit, turn_pos)
        sides = [turn, unit], [unit_pos, turn_pos]
        db, dr = _weights_along(b, _tilt(*sides, positive, 1 / temperature))
        db_back, dr_back = _weights_along(back, _tilt(*sides[::-1], positive, 1 / temperature))
        dg = _cosine_slope(db + db_back.mT, dr + dr_back, rate)
        dpull = matrix_product(dg, unit_pos) + matrix_product(g, turn_pos)
        dpull_pos = matrix_product(dg.mT, unit) + matrix_product(g.mT, turn)
        down = _dots(turn, pull) + _dots(unit, dpull) - 2 * stretch * own
        down_pos = _dots(turn_pos, pull_pos) + _dots(unit_pos, dpull_pos) - 2 * stretch_pos * own_pos
        return _symmetric(half(dg - (stretch + stretch_pos.mT) * g, down, down_pos), -1.0)

    return _symmetric(half(g, own, own_pos), -1.0), along


def _cosine_slope(negatives: Tensor, positives: Tensor, rate: float) -> Tensor:
    """G from the negatives' weights, over which it is written, and what these take from the positives."""
    negatives.diagonal(dim1=-2, dim2=-1).sub_(positives.squeeze(-1))
    return negatives.mul_(rate)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _spectral_along(product: Tensor, x: Tensor, x_pos: Tensor, one_sided: bool) -> tuple[Tensor, Along]:
    """No n x n array: the sum over i != j of (z_i . y_j) x_i y_j^T is (x^T z)(z_y^T y) less its diagonal terms."""
    z, _, y, z_negative = _embedded(product, x, x_pos, one_sided)
    n = x.shape[-2]
    repel = 2 / (n * (n - 1))
    left, right = matrix_product(x.mT, z), matrix_product(z_negative.mT, y)
    own = repel * (z * z_negative).sum(-1, keepdim=True)
    half = repel * matrix_product(left, right) - matrix_product(x.mT, own * y + 2 / n * x_pos)

    def along(change: Tensor) -> Tensor:
        dz, _, _, dz_negative = _embedded(change, x, x_pos, one_sided)
        moved = matrix_product(matrix_product(x.mT, dz), right) + matrix_product(
            left, matrix_product(dz_negative.mT, y)
        )
        own = repel * ((dz * z_negative).sum(-1, keepdim=True) + (z * dz_negative).sum(-1, keepdim=True))
        return _symmetric(repel * moved - matrix_product(x.mT, own * y), -1.0)

    return _symmetric(half, -1.0), along
