"""Not in the paper: what a projector protects, what DirectCLR leaves alone, and what collapse costs."""

import torch
from torch import Tensor

from dyncollapse.claims.beyond_one_layer import AT_REST
from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.populations import exchangeable, moments_of, unlike
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.losses import spectral
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.equilibria import growth_rates
from dyncollapse.theory.mode_forces import mode_forces
from dyncollapse.theory.probe_cost import excess_error, probe_cost
from dyncollapse.theory.projector import layer_values_at_rest, protection_rate
from dyncollapse.theory.rest_modes import rest_modes

SOURCE = "not in the paper (one-axis.md, projector)"
PRICE = "not in the paper (one-axis.md, probe)"
# One-sided modes along the axes, s = 1/2: two live and two die. Encoder and projector start with these values.
AUG_VARS = torch.tensor([0.2, 0.4, 1.6, 2.0], dtype=torch.float64)
TASK = GaussianTask(0.5 * torch.eye(4, dtype=torch.float64), torch.diag(AUG_VARS))
FIRST = torch.tensor([0.7, 0.3, 0.9, 0.3], dtype=torch.float64)
SECOND = torch.tensor([0.2, 0.5, 0.3, 0.8], dtype=torch.float64)


def _rotation(dim: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


def _layers(first: Tensor, second: Tensor) -> Weights:
    """Encoder and projector aligned with the axes of the inputs, along random directions of both their outputs."""
    generator = torch.Generator().manual_seed(0)
    hidden, out = _rotation(4, generator), _rotation(4, generator)
    return hidden * first, out * second @ hidden.T


@claim("projector-protects", SOURCE, "largest difference of singular values at rest")
def projector_protects() -> Measured:
    """Where the embedding's mode dies, the representation's rests at sqrt(max(C_k, 0)), C_k = s1^2 - s2^2 at the start.

    Where it lives, s1^2 = (C_k + sqrt(C_k^2 + 4 p*^2)) / 2. Encoder and projector are aligned with four one-sided modes
    of Eq. 2 and of vcreg, two of which die; in either pair of modes one has a larger encoder and one a larger
    projector. The flow is integrated until it rests. The norms of the encoder's columns are its singular values, mode
    by mode, and are compared with these formulas and `layer_values_at_rest` with them. Control: the dead mode with the
    larger encoder keeps a representation above 1/2, and that with the larger projector loses it. The solver lets C_k
    drift by about its rtol of 1e-10 per step.
    """
    worst, imbalance = 0.0, FIRST.square() - SECOND.square()
    for objective in (Objective(), Objective("vcreg", invariance=1.5)):
        forces = mode_forces(TASK, objective.name, objective.temperature, objective.invariance)
        product = (forces.rest_variance() / forces.view_var).sqrt()
        assume((product > 0).tolist() == [True, True, False, False], "two modes live and two die")
        path = population_flow(_layers(FIRST, SECOND), TASK, 300.0, objective=objective, rtol=1e-10, atol=1e-14)
        found = path.weights[0][-1].norm(dim=0)
        root = torch.sqrt(imbalance.square() + 4 * product.square())
        expected = torch.where(product > 0, ((imbalance + root) / 2).sqrt(), imbalance.clamp_min(0).sqrt())
        worst = max(worst, float((found - expected).abs().max()))
        package = layer_values_at_rest(product, imbalance)[0]
        assume(unlike(package, expected) < ROUND_OFF, "the package has this formula")
        assume(float(found[2]) > 0.5 and float(found[3]) < 1e-6, "one is protected, the other lost")
    return Measured(worst, 1e-7)


@claim("projector-decay-rate", SOURCE, "largest relative error of the rate")
def projector_decay_rate() -> Measured:
    """A dead mode of the embedding decays at the rate |x0| |C_k| once the layers have taken up their imbalance.

    Four one-sided modes of Eq. 2 that die at different rates, two with a larger encoder and two with a larger
    projector. The rate is the slope of log p between two times, by when p has fallen to 1e-4 or less; the force at
    finite p and s1 s2 beside C_k change it by p^2. Control: from balanced layers p falls as a power of t only.
    """
    task = GaussianTask(0.5 * torch.eye(4).double(), torch.diag(torch.tensor([1.5, 1.6, 1.8, 2.0]).double()))
    first, second = torch.tensor([0.9, 0.9, 0.4, 0.3]).double(), torch.tensor([0.3, 0.4, 0.9, 0.9]).double()
    expected = protection_rate(growth_rates(task), first.square() - second.square())
    path = population_flow(_layers(first, second), task, [40.0, 50.0], atol=0.0)
    size = path.product.norm(dim=1)
    assume(float(size[0].max()) < 1e-4, "the modes have died down")
    even = population_flow(_layers(first, first), task, [40.0, 50.0], atol=0.0).product.norm(dim=1)
    assume(float((even[0] / even[1]).max()) < 1.5, "balanced layers decay slowly")
    return Measured(float(((size[0] / size[1]).log() / 10 / expected - 1).abs().max()), 1e-6)


def _whitened(signal: Tensor, noise: Tensor, generator: torch.Generator) -> Pairs:
    """A population with G = diag(signal^2 - noise^2) and S_e = diag(signal^2 + noise^2), exactly, and no Gaussian."""
    dim, n = len(signal), 40
    drawn = torch.rand(n, 2 * dim, generator=generator, dtype=torch.float64).pow(3)
    white = torch.linalg.qr(drawn - drawn.mean(0))[0] * n**0.5
    common, apart = white[:, :dim] * signal, white[:, dim:] * noise
    return exchangeable(common + apart, common - apart)


def _trained_before(projector: Tensor, encoder: Tensor, pairs: Pairs, objective: Objective) -> Tensor:
    """The encoder after 250 steps of gradient descent, with the projector as it is."""
    for _ in range(250):
        encoder = encoder - 0.05 * objective.gradient((encoder, projector), pairs)[0]
    return encoder


@claim("projector-frozen", SOURCE, "largest difference of the encoder's singular values")
def projector_frozen() -> Measured:
    """Before a frozen projector of singular values q the encoder rests at s1 = p* / q: it makes up for the projector.

    Gradient descent of the encoder alone on vcreg, on fixed populations of 40 skewed pairs in both orders; q = 0.7,
    0.8, 1 and 1.3. In one population all modes rest at one p*, and the projector is a random matrix. In the other the
    p* differ, and the projector is diagonal along the modes. 250 steps converge to better than 1e-10. Control: with the
    projector trained, too, the encoder must rest elsewhere.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    q = torch.tensor([0.7, 0.8, 1.0, 1.3], dtype=torch.float64)
    ones, graded = torch.ones(4, dtype=torch.float64), torch.tensor([1.0, 0.8, 1.2, 0.9], dtype=torch.float64)
    frames = [_rotation(4, generator) for _ in range(2)]
    for signal, projector, start in (
        (ones, frames[0] * q @ frames[1].T, 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)),
        (graded, torch.diag(q), 0.5 * torch.eye(4, dtype=torch.float64)),
    ):
        pairs, vcreg = _whitened(signal, 0.3 * ones, generator), Objective("vcreg")
        rest = rest_modes(moments_of(pairs), "vcreg").gram.diagonal().sqrt()
        encoder = _trained_before(projector, start, pairs, vcreg)
        free = train((start, projector), pairs, steps=100, lr=0.05, objective=vcreg, records=2).final()[0]
        found, expected = torch.linalg.svdvals(encoder), (rest / q).sort(descending=True).values
        assume(unlike(torch.linalg.svdvals(free), expected) > 0.05, "a trained projector takes its share")
        worst = max(worst, unlike(found, expected))
    return Measured(worst, AT_REST)


def _seen(z: Tensor, z_pos: Tensor, _negatives: Tensor) -> Tensor:
    """The spectral loss of the first two outputs, as DirectCLR applies its loss to a part of the representation."""
    return spectral(z[..., :2], z_pos[..., :2], z_pos[..., :2])


@claim("directclr-rows", SOURCE, "largest change of the rows that the loss does not see")
def directclr_rows() -> Measured:
    """Rows that the loss does not see stay exactly at their start (DirectCLR), while those it sees fill like m outputs.

    SGD on the spectral loss of the first two of four outputs, one linear layer, 200 steps of batches of 256 Gaussian
    pairs. The last two rows of the layer must not change by a single bit. The first two must rest at the two modes of
    largest gain, within a tenth of the noise of SGD, as two outputs do. Control: in two layers the unseen rows of the
    last layer stay, too, but what they read from the first does not: these outputs change.
    """
    generator, objective = torch.Generator().manual_seed(0), Objective(_seen)
    s, a = torch.tensor([1.0, 0.8, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.1, 0.3, 0.5]).double()
    task = GaussianTask(torch.diag(s), torch.diag(a), "two-sided")
    (start,) = gaussian_init([4, 4], generator, scale=0.3)
    (end,) = train((start,), task.stream(256, generator), steps=200, lr=0.05, objective=objective, records=2).final()
    rest = rest_modes(task, "spectral", outputs=2).gram
    assume(unlike(end[:2].T @ end[:2], rest) < 0.1, "the rows that are seen rest as two outputs do")
    deep = gaussian_init([4, 4, 4], generator, scale=0.5)
    stream = task.stream(256, generator)
    after = train(deep, stream, steps=30, lr=0.05, objective=objective, records=2).final()
    assume(bool(after[1][2:].equal(deep[1][2:])), "rows of the last layer stay in two layers, too")
    assume(unlike(after[1][2:] @ after[0], deep[1][2:] @ deep[0]) > 0.1, "their outputs do not")
    return Measured(float((end[2:] - start[2:]).abs().max()), 0)


@claim("probe-price", PRICE, "largest relative error of the excess error")
def probe_price() -> Measured:
    """A ridge probe of strength l misses a share (l / (c_k + l))^2 of a target along a mode of embedding variance c_k.

    The excess error is sum_k beta_k^2 s_k (l / (c_k + l))^2: dead, suppressed and waiting dimensions have a price each.
    A population of skewed inputs, whose covariance is made exactly diag(s), an embedding with c_k from 0 to 100 l
    behind a random rotation, and a noiseless target. Ridge regression is solved as least squares with penalty rows, and
    its mean squared error compared with the formula, for l = 0.003, 0.03 and 0.3. A probe sees second moments only, so
    that the bound is round-off. Control: ordinary prices must lie strictly between 0 and 1, and that of the dead
    dimension be 1.
    """
    generator, errors = torch.Generator().manual_seed(0), []
    s, beta = torch.tensor([1.0, 0.5, 2.0, 0.8]).double(), torch.tensor([1.0, -1.0, 0.5, 2.0]).double()
    p = torch.tensor([1.7, 0.3, 0.1, 0.0], dtype=torch.float64)
    pairs = _whitened(s.sqrt(), torch.zeros(4, dtype=torch.float64), generator)
    x, n = pairs.anchor, len(pairs.anchor)
    z, y = x * p @ _rotation(4, generator), x @ beta
    for ridge in (0.003, 0.03, 0.3):
        rows = torch.cat([z, (n * ridge) ** 0.5 * torch.eye(4, dtype=torch.float64)])
        probe = torch.linalg.lstsq(rows, torch.cat([y, y.new_zeros(4)])[:, None]).solution[:, 0]
        found = float((y - z @ probe).square().mean())
        price = probe_cost(s, p.square() * s, ridge)
        assume(float(price[3]) == 1 and 0 < float(price[:3].min()) < float(price[:3].max()) < 1, "prices are graded")
        expected = float((beta.square() * s * (ridge / (p.square() * s + ridge)).square()).sum())
        assume(abs(float(excess_error(beta, s, p.square() * s, ridge)) / expected - 1) < ROUND_OFF, "as the package's")
        errors.append(abs(found / expected - 1))
    return Measured(max(errors), ROUND_OFF)


@claim("probe-price-of-fates", PRICE, "largest relative error of the excess error")
def probe_price_of_fates() -> Measured:
    """Collapse has a price at a finite time: waiting dimensions lose theirs when they are learnt, dead ones never.

    One layer of Eq. 2 with one-sided views from 1e-3, the modes of `projector-protects`. At the times at which two
    modes have half their rest variance by `learning_times`, the price of each mode that the flow gives is compared with
    that of the predicted variance, l = 0.1. Control: the price of a waiting mode must fall from above 0.9 to below 0.2,
    and that of a dead one must exceed 0.999 throughout.
    """
    forces = mode_forces(TASK)
    times = forces.learning_times(1e-3)[:2]
    start = (1e-3 * torch.eye(4, dtype=torch.float64),)
    moments = [0.3 * float(times.min()), *times.sort().values.tolist(), 4 * float(times.max())]
    path = population_flow(start, TASK, moments, method="DOP853")
    s = 0.5 * torch.ones(4, dtype=torch.float64)
    prices = probe_cost(s, path.product.square().sum(1) * s, 0.1)
    assume(float(prices[0, :2].min()) > 0.9 and float(prices[-1, :2].max()) < 0.2, "prices fall when modes are learnt")
    assume(float(prices[:, 2:].min()) > 0.999, "dead modes cost all")
    half = probe_cost(s[:2], forces.rest_variance()[:2] / 2, 0.1)
    found = torch.stack([prices[1 + step, mode] for step, mode in enumerate(times.argsort().tolist())])
    return Measured(unlike(found, half[times.argsort()]), 1e-6)
