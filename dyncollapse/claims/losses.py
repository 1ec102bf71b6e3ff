"""The losses as printed in their papers: sums over pairs of rows, written out in plain Python numbers."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF, relative_error
from dyncollapse.model.choices import VIEWS
from dyncollapse.model.covariance import WEIGHINGS, blockwise_covariance
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs

Row = Sequence[float]
Rows = Sequence[Row]
Slow = Callable[[Rows, Rows, Rows], float]

TEMPERATURES = (0.1, 0.5)


def _dot(a: Row, b: Row) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _unit(a: Row) -> list[float]:
    return [x / math.sqrt(_dot(a, a)) for x in a]


def _cross_entropy(similarity: Callable[[Row, Row], float], z: Rows, z_pos: Rows, y: Rows) -> float:
    """Mean of -log e^(s(z_i, z'_i)) / (e^(s(z_i, z'_i)) + sum_{j != i} e^(s(z_i, y_j)))."""
    total = 0.0
    for i, anchor in enumerate(z):
        own = math.exp(similarity(anchor, z_pos[i]))
        others = math.fsum(math.exp(similarity(anchor, other)) for j, other in enumerate(y) if j != i)
        total -= math.log(own / (own + others))
    return total / len(z)


def _infonce(z: Rows, z_pos: Rows, y: Rows) -> float:
    return _cross_entropy(lambda a, b: -math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / 2, z, z_pos, y)


def _dot_product(temperature: float) -> Slow:
    return lambda z, z_pos, y: _cross_entropy(lambda a, b: _dot(a, b) / temperature, z, z_pos, y)


def _ntxent(temperature: float) -> Slow:
    def loss(z: Rows, z_pos: Rows, _y: Rows) -> float:
        def cosine(a: Row, b: Row) -> float:
            return _dot(_unit(a), _unit(b)) / temperature

        return (_cross_entropy(cosine, z, z_pos, z_pos) + _cross_entropy(cosine, z_pos, z, z)) / 2

    return loss


def _spectral(z: Rows, z_pos: Rows, y: Rows) -> float:
    n = len(z)
    attraction = math.fsum(_dot(a, b) for a, b in zip(z, z_pos, strict=True)) / n
    repulsion = math.fsum(_dot(a, b) ** 2 for i, a in enumerate(z) for j, b in enumerate(y) if i != j)
    return -2 * attraction + repulsion / (n * (n - 1))


def _network(views: str, seed: int) -> tuple[Weights, Pairs]:
    """Two layers from 4 to 3 dimensions and 7 pairs, all of order 1."""
    generator = torch.Generator().manual_seed(seed)
    eye = torch.eye(4, dtype=torch.float64)
    pairs = GaussianTask(eye, 0.3 * eye, views).sample(7, generator)
    return gaussian_init([4, 8, 3], generator, scale=0.4), pairs


def _slow_value(slow: Slow, weights: Weights, pairs: Pairs, activation: str) -> float:
    """The printed loss of a network, one layer after the other."""
    embedded = []
    for x in (pairs.anchor, pairs.positive):
        hidden = x @ weights[0].T
        hidden = hidden.clamp(min=0) if activation == "relu" else hidden
        embedded.append((hidden @ weights[1].T).tolist())
    z, z_pos = embedded
    return slow(z, z_pos, z if pairs.views == "one-sided" else z_pos)


def _printed(name: str) -> list[tuple[Objective, Slow]]:
    """The objectives of a loss, linear and ReLU, at each of TEMPERATURES, with the printed formula of each."""
    choices: dict[str, list[tuple[float | None, Slow]]] = {
        "infonce": [(None, _infonce)],
        "dot": [(tau, _dot_product(tau)) for tau in TEMPERATURES],
        "ntxent": [(tau, _ntxent(tau)) for tau in TEMPERATURES],
        "spectral": [(None, _spectral)],
    }
    return [(Objective(name, tau, kind), slow) for tau, slow in choices[name] for kind in ("linear", "relu")]


def _error_of_value(name: str) -> Measured:
    """Largest relative difference from the printed loss, over seeds, views, temperatures, linear and ReLU."""
    errors = []
    for objective, slow in _printed(name):
        for views in VIEWS if name != "ntxent" else ("two-sided",):
            for seed in range(3):
                weights, pairs = _network(views, seed)
                expected = _slow_value(slow, weights, pairs, objective.activation)
                errors.append(abs(float(objective.value(weights, pairs)) - expected) / abs(expected))
    return Measured(max(errors), ROUND_OFF)


@claim("loss-infonce", "Eq. 2", "relative error of the loss")
def loss_infonce() -> Measured:
    """InfoNCE is the mean over i of |z_i - z'_i|^2 / 2 + log Z_i, where Z_i sums over the positive and the negatives.

    The loss that training and flows use is compared with the sums of Eq. 2, written out pair by pair, for linear and
    ReLU networks of two layers and both view conventions. The bound is round-off.
    """
    return _error_of_value("infonce")


@claim("loss-dot", "the authors' toy code", "relative error of the loss")
def loss_dot() -> Measured:
    """The loss of the authors' toy code is InfoNCE on unnormalised dot products z_i . y_j / tau.

    Compared as `loss-infonce`, at the authors' tau = 0.1 and at 0.5.
    """
    return _error_of_value("dot")


@claim("loss-ntxent", "Chen et al. 2020 (Eq. 1, across views)", "relative error of the loss")
def loss_ntxent() -> Measured:
    """NT-Xent across views is InfoNCE on cosines over tau, averaged over the two directions between the views.

    The negatives are the other view's rows, as in the authors' DirectCLR; SimCLR itself uses the rows of both views.
    Compared as `loss-infonce`, at tau = 0.1 and 0.5, for two-sided views, which this loss requires.
    """
    return _error_of_value("ntxent")


@claim("loss-spectral", "HaoChen et al. 2021 (Eq. 6)", "relative error of the loss")
def loss_spectral() -> Measured:
    """The spectral contrastive loss is -2 E(z . z') + E((z . y)^2), over positive pairs and over negative pairs.

    Compared as `loss-infonce`.
    """
    return _error_of_value("spectral")


@claim("loss-gradients", "by definition", "relative error of the slope along a random direction")
def loss_gradients() -> Measured:
    """The gradients that training and flows follow are those of the printed losses.

    For each of the four losses, linear and ReLU, the derivative along a random direction of all weights is compared
    with difference quotients of the printed loss over h = 1/1000 and half of it, extrapolated to fourth order. Their
    error is h^4 = 1e-12 times a fifth derivative of order tau^-5 = 1e5, plus round-off of 1e-16 / h. No ReLU crosses
    its kink within h, or its quotient would be off by far more.
    """
    errors, step = [], 1e-3
    for name in ("infonce", "dot", "ntxent", "spectral"):
        for objective, slow in _printed(name):
            weights, pairs = _network("two-sided", 0)
            toward = gaussian_init([4, 8, 3], torch.Generator().manual_seed(1), scale=1.0)
            values = []
            for h in (step, -step, step / 2, -step / 2):
                moved = tuple(w + h * t for w, t in zip(weights, toward, strict=True))
                values.append(_slow_value(slow, moved, pairs, objective.activation))
            wide, narrow = (values[0] - values[1]) / (2 * step), (values[2] - values[3]) / step
            expected = (4 * narrow - wide) / 3
            assume(abs(expected) > 0.01, "the loss has a slope")
            gradient = objective.gradient(weights, pairs)
            slope = sum(float((g * t).sum()) for g, t in zip(gradient, toward, strict=True))
            errors.append(abs(slope / expected - 1))
    return Measured(max(errors), 1e-6)


def _similarity(loss: str, a: Row, b: Row) -> float:
    """Logit of a pair; NT-Xent's and the dot products' at temperature 0.1."""
    if loss == "infonce":
        return -math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 2
    return _dot(a, b) / 0.1 if loss == "dot" else _dot(_unit(a), _unit(b)) / 0.1


def _printed_sums(loss: str, pairs: Pairs, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sigma0 and Sigma1 of Lemma 2, outer product by outer product, with a loss's softmax weights."""
    z, z_pos = (x @ weight.T for x in (pairs.anchor, pairs.positive))
    y, n = z if pairs.views == "one-sided" else z_pos, len(z)
    sums = torch.zeros(2, *2 * pairs.anchor.shape[1:], dtype=z.dtype)
    for i, (x, x_pos) in enumerate(zip(pairs.anchor, pairs.positive, strict=True)):
        row = [(z_pos if j == i else y)[j].tolist() for j in range(n)]
        kernel = [math.exp(_similarity(loss, z[i].tolist(), other)) for other in row]
        for j, share in enumerate(k / math.fsum(kernel) for k in kernel):
            side, gap, part = (1, x_pos - x, 1 - share) if j == i else (0, x - pairs.negatives[j], share)
            sums[side] += part * torch.outer(gap, gap) / n
    return sums[0], sums[1]


@claim("contrastive-sums", "Lemma 2", "relative error of Sigma0 and Sigma1")
def contrastive_sums() -> Measured:
    """Sigma0 and Sigma1 are the sums of Lemma 2 over pairs, weighted by the softmax of the loss.

    `blockwise_covariance`, which reports use, in blocks of two rows, is compared with outer products that are summed
    pair by pair: for Eq. 2, and for dot products and NT-Xent at tau = 0.1, with both view conventions where the loss
    has them. The bound is round-off.
    """
    errors = []
    for loss in WEIGHINGS:
        for views in VIEWS if loss != "ntxent" else ("two-sided",):
            (_, weight), pairs = _network(views, 0)
            weight = weight[:, :4]
            z, z_pos = (x @ weight.T for x in (pairs.anchor, pairs.positive))
            found = blockwise_covariance(pairs.anchor, pairs.positive, z, z_pos, loss=loss, views=views, block=2)
            sides = zip((found.data, found.augmentation), _printed_sums(loss, pairs, weight), strict=True)
            errors += [relative_error(got, expected) for got, expected in sides]
    return Measured(max(errors), ROUND_OFF)
