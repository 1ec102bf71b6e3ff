"""Not in the paper: how SGD differs from the flow; momentum and weight decay."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF, relative_error, small_network
from dyncollapse.claims.sampling import SIGMAS, random_task
from dyncollapse.dynamics.comparison import order_of_convergence, relative_distance
from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.training import train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.choices import ACTIVATIONS, VIEWS
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.equilibria import rest_gram
from dyncollapse.theory.imbalance import imbalance

RATES = [2.0**-e for e in range(5, 9)]


@claim("sgd-first-order", "not in the paper (5g)", "distance of the order in the learning rate from 1")
def sgd_first_order() -> Measured:
    """On one fixed batch SGD converges to the gradient flow at first order in the learning rate.

    Gradient descent at rates 1/128 to 1/512 and the flow of the same batch are compared at t = 1, for one and two
    layers. The order is the slope of the log distance against the log rate. At a rate of 1/32 terms of second order
    still show, with measured slopes up to 1.18. At the rates used they are a quarter of that, and the bound allows for
    twice as much.
    """
    slopes, rates = [], [rate / 4 for rate in RATES[:3]]
    for depth in (1, 2):
        weights, pairs = small_network(depth)
        flow = sample_flow(weights, pairs, 1.0, rtol=1e-10)
        paths = [train(weights, pairs, lr=lr, steps=round(1 / lr), records=2) for lr in rates]
        slopes.append(order_of_convergence(rates, [float(relative_distance(path, flow)[1][-1]) for path in paths]))
    return Measured(max(abs(slope - 1) for slope in slopes), 0.1)


@claim("sgd-imbalance-step", "not in the paper (5g)", "relative error of the change of C")
def sgd_imbalance_step() -> Measured:
    """One SGD step of rate lr changes C = W1 W1^T - W2^T W2 by exactly lr^2 (G1 G1^T - G2^T G2).

    G1 and G2 are the layers' gradients on the batch of that step. The change of first order in lr cancels on every
    batch, because the identity behind App. B.5 holds for every batch. One step with lr = 0.1; the bound is the
    round-off of C, relative to its small change.
    """
    weights, pairs = small_network(depth=2)
    g1, g2 = Objective().gradient(weights, pairs)
    lr = 0.1
    path = train(weights, pairs, lr=lr, steps=1, records=2)
    before, after = imbalance(*path.weights)
    return Measured(relative_error(after - before, lr**2 * (g1 @ g1.T - g2.T @ g2)), 1e-10)


@claim("sgd-imbalance-drift", "not in the paper (5g)", "distance of the order in the learning rate from 1")
def sgd_imbalance_drift() -> Measured:
    """SGD's drift of C over a fixed flow time is of first order in the learning rate, fresh batches or not.

    Each step adds a term in lr^2, and there are t / lr steps. 16 runs of two layers train on fresh batches of 32 to t =
    8, at rates 1/32 to 1/256. The order is the slope of the log drift against the log rate, averaged over the runs. The
    bound is five standard errors, plus terms of second order, which are as large as the middle rate because the modes
    grow at rates below 1.
    """
    runs, task = 16, GaussianTask.block(4, 4, 0.5)
    drifts = torch.empty(len(RATES), runs, dtype=torch.float64)
    for row, lr in enumerate(RATES):
        generator = torch.Generator().manual_seed(0)
        weights = gaussian_init([4] * 3, generator, (runs,), 0.5)
        path = train(weights, task.stream(32, generator, (runs,)), lr=lr, steps=round(8 / lr), records=2)
        c = imbalance(*path.weights)
        drifts[row] = torch.linalg.matrix_norm(c[-1] - c[0])
    slopes = torch.tensor([order_of_convergence(RATES, run.tolist()) for run in drifts.T])
    middle = (RATES[0] * RATES[-1]) ** 0.5
    return Measured(abs(float(slopes.mean()) - 1), SIGMAS * float(slopes.std()) / runs**0.5 + middle)


@claim("sgd-momentum", "not in the paper (5g)", "distance of the order in the learning rate from 1")
def sgd_momentum() -> Measured:
    """With heavy-ball momentum m SGD follows the same flow, in the time t = lr steps / (1 - m), at first order.

    As in `sgd-first-order`, with the same bound, for two layers, m = 0.5 and 0.9, and effective rates lr / (1 - m) of
    1/256 to 1/1024. The rates are smaller there because momentum adds terms in lr m / (1 - m)^2. Control: the flow at
    another time must be far off.
    """
    weights, pairs = small_network(depth=2)
    flow, slopes, rates = sample_flow(weights, pairs, [0.5, 1.0], rtol=1e-10), [], [rate / 8 for rate in RATES[:3]]
    for momentum in (0.5, 0.9):
        distances = []
        for rate in rates:
            lr, steps = rate * (1 - momentum), round(1 / rate)
            path = train(weights, pairs, lr=lr, steps=steps, momentum=momentum, records=2)
            assume(abs(float(path.time[-1]) - 1) < 1e-9, "the record ends at t = lr steps / (1 - m)")
            distances.append(relative_error(path.product[-1], flow.product[-1]))
        assume(relative_error(path.product[-1], flow.product[0]) > 20 * distances[-1], "another time is far off")
        slopes.append(order_of_convergence(rates, distances))
    return Measured(max(abs(slope - 1) for slope in slopes), 0.1)


def _by_torch(
    weights: Weights, pairs: Pairs, steps: int, *, lr: float, momentum: float, weight_decay: float, activation: str
) -> list[Tensor]:
    """The same network, loss and batch, trained by PyTorch's SGD on the loss's pairwise sums."""
    layers = [w.clone().requires_grad_() for w in weights]
    velocities: list[Tensor | None] = [None] * len(layers)
    own, labels = torch.eye(len(pairs.anchor), dtype=torch.bool), torch.arange(len(pairs.anchor))
    for _ in range(steps):
        z, z_pos, y = pairs.anchor, pairs.positive, pairs.negatives
        for i, w in enumerate(layers):
            if i and activation == "relu":
                z, z_pos, y = z.relu(), z_pos.relu(), y.relu()
            z, z_pos, y = z @ w.T, z_pos @ w.T, y @ w.T
        squares = torch.where(own, (z - z_pos).square().sum(-1, keepdim=True), (z[:, None] - y).square().sum(-1))
        gradients = list(torch.autograd.grad(torch.nn.functional.cross_entropy(-squares / 2, labels), layers))
        with torch.no_grad():
            # The function behind torch.optim.SGD, whose class takes most of a second to import PyTorch's compiler.
            sgd(
                layers,
                gradients,
                velocities,
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                dampening=0,
                nesterov=False,
                maximize=False,
                foreach=False,
                fused=False,
            )
    return [w.detach() for w in layers]


@claim("sgd-is-torch", "by definition", "relative error of the weights after 20 steps")
def sgd_is_torch() -> Measured:
    """SGD, heavy-ball momentum and weight decay are those of torch.optim.SGD.

    Two layers, linear or with a ReLU between them, train for 20 steps of rate 0.05 on one batch of Eq. 2, with momentum
    0 and 0.9, weight decay 0 and 0.1, and both view conventions. They are compared with torch.optim.sgd.sgd, which
    takes the steps of that optimiser, and automatic differentiation of the pairwise sums. The bound is round-off.
    """
    errors = []
    for views in VIEWS:
        weights, pairs = small_network(depth=2, views=views)
        for activation, momentum, decay in itertools.product(ACTIVATIONS, (0.0, 0.9), (0.0, 0.1)):
            rates: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "weight_decay": decay}
            path = train(weights, pairs, steps=20, objective=Objective(activation=activation), records=2, **rates)
            expected = _by_torch(weights, pairs, 20, activation=activation, **rates)
            errors += [relative_error(got, want) for got, want in zip(path.final(), expected, strict=True)]
    return Measured(max(errors), ROUND_OFF)


@claim("sgd-decay-step", "not in the paper (5g)", "relative error of C after the step")
def sgd_decay_step() -> Measured:
    """With weight decay w one SGD step of rate lr takes C to (1 - lr w)^2 C + lr^2 (G1 G1^T - G2^T G2), exactly.

    As `sgd-imbalance-step`, with lr = 0.1 and w = 0.5. The bound is round-off.
    """
    weights, pairs = small_network(depth=2)
    (g1, g2), lr, w = Objective().gradient(weights, pairs), 0.1, 0.5
    before, after = imbalance(*train(weights, pairs, lr=lr, steps=1, weight_decay=w, records=2).weights)
    return Measured(relative_error(after, (1 - lr * w) ** 2 * before + lr**2 * (g1 @ g1.T - g2.T @ g2)), ROUND_OFF)


def _error_of_imbalance(path: Trajectory, decay: float) -> float:
    """Largest relative distance of C(t) from exp(-2 w t) C(0)."""
    errors = []
    for pair in itertools.pairwise(path.weights):
        c = imbalance(*pair)
        expected = torch.exp(-2 * decay * path.time).view(-1, 1, 1) * c[0]
        errors += [relative_error(got, want) for got, want in zip(c, expected, strict=True)]
    return max(errors)


@claim("weight-decay", "not in the paper (5g)", "relative error of C(t)")
def weight_decay() -> Measured:
    """With weight decay w the imbalance shrinks as C(t) = exp(-2 w t) C(0): decay balances the layers.

    Two and three layers, along the flow of one batch and along that of infinitely many samples, with w = 0.2 up to t =
    5, when C has shrunk by a factor of 7. The solvers err by 1e-8 and 1e-10 per step.
    """
    w, times, errors = 0.2, [0.0, 1.0, 5.0], []
    task = random_task(5, "one-sided", torch.Generator().manual_seed(0))
    for depth in (2, 3):
        weights, pairs = small_network(depth)
        errors.append(_error_of_imbalance(sample_flow(weights, pairs, times, weight_decay=w), w))
        errors.append(_error_of_imbalance(population_flow(weights, task, times, weight_decay=w, rtol=1e-10), w))
    return Measured(max(errors), 1e-6)


@claim("weight-decay-rest", "not in the paper (5g)", "relative difference of P^T P at rest")
def weight_decay_rest() -> Measured:
    """Weight decay w acts on one layer as augmentation of variance w in every direction: A_e becomes A_e + w I.

    Two-sided views therefore have a sharp threshold, too: a mode dies when w >= 2 s. The population flow for random
    covariances without common eigenvectors and both view conventions is integrated until it rests, and P^T P is
    compared with the closed form for A_e + w I. w is 0.5, and 1 % less and 1 % more than twice the largest eigenvalue
    of S. Two-sided, the last must leave nothing and the one before something. The remaining difference is the solver's
    error.
    """
    worst = 0.0
    for views in VIEWS:
        generator = torch.Generator().manual_seed(0)
        task = random_task(3, views, generator)
        weights, identity = gaussian_init([3, 3], generator, scale=0.5), torch.eye(3, dtype=torch.float64)
        threshold = 2 * float(torch.linalg.eigvalsh(task.data_cov)[-1])
        for decay in (0.5, 0.99 * threshold, 1.01 * threshold):
            p = population_flow(weights, task, 1e4, weight_decay=decay, rtol=1e-8, atol=1e-13).product[-1]
            s_e, a_e = task.seen
            expected = rest_gram(GaussianTask(s_e, a_e + decay * identity))
            if views == "two-sided" and decay != 0.5:
                alive = float(expected.norm()) > 1e-6
                assume(alive == (decay < threshold), "two-sided, decay kills from twice the data's variance on")
            worst = max(worst, float((p.T @ p - expected).norm()) / max(float(expected.norm()), 1e-3))
    return Measured(worst, 1e-8)
