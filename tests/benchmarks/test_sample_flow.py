"""Sample flows: ours against torchdiffeq, torchode and diffrax on the same batches, loss, tolerances and end.

Long ones, which turn from DOP853 to CVODE where they are stiff, also against each of the two to the end.

The mild flow has two layers under Eq. 2; the stiff one is case 1 of the authors' toy code, one layer with a bias under
dot products at temperature 0.1. Peers differentiate the loss automatically, as most people would write it. torchdiffeq
also gets our gradient in closed form, so that only the solvers differ. JAX compiles before the clock starts. The long
flows are the stiff one, and two layers of 8 on 4 batches of 64.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from helpers.peers import ABSENT, Layers, by_autograd, by_diffrax, by_torchdiffeq, by_torchode, installed
from helpers.timing import race

from dyncollapse import GaussianTask, Objective, Pairs, dot_infonce, gaussian_init, infonce, sample_flow, stack_pairs
from dyncollapse.runtime.process import torch_threads
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve

BATCHES, RTOL = 8, 1e-8
ATOL = RTOL / 100  # given to all; without one ours takes round-off of the start and some more steps
# Solvers at rtol 1e-8 over hundreds of steps, on flows whose growth multiplies early errors.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

pytestmark = pytest.mark.benchmark(group="sample flow", timer=time.process_time)


@pytest.fixture(autouse=True)
def one_core():
    with torch_threads(1):
        yield


class Problem(NamedTuple):
    """Start, batches, loss and end of a flow."""

    weights: Layers
    biases: Layers
    pairs: Pairs
    objective: Objective
    until: float

    @property
    def start(self) -> Layers:
        return [*self.weights, *self.biases]

    def ours(self, method: str | None = None) -> Layers:
        settings = {"objective": self.objective, "biases": self.biases, "rtol": RTOL, "atol": ATOL, "method": method}
        path = sample_flow(self.weights, self.pairs, self.until, **settings)
        return [layer[-1] for layer in (*path.weights, *path.biases)]

    def loss(self, layers: Layers) -> torch.Tensor:
        z, z_pos = (embed(layers, len(self.weights), x) for x in (self.pairs.anchor, self.pairs.positive))
        losses = dot_infonce(z, z_pos, z_pos) if self.objective.loss == "dot" else infonce(z, z_pos)
        return losses.mean(0).sum()

    def closed_form(self, layers: Layers) -> Layers:
        depth = len(self.weights)
        return [-g for g in self.objective.gradient(tuple(layers[:depth]), self.pairs, layers[depth:])]

    def in_jax(self, layers: Sequence[Any]) -> Any:
        import jax

        x, x_pos = (views.numpy() for views in (self.pairs.anchor, self.pairs.positive))
        dot, temperature = self.objective.loss == "dot", self.objective.temperature

        def loss(layers: Sequence[Any]) -> Any:
            z, z_pos = (embed(layers, len(self.weights), views) for views in (x, x_pos))
            if dot:
                logits = z @ z_pos.mT / temperature
            else:
                squares = (z**2).sum(-1)
                logits = z @ z.mT - squares[..., None, :] / 2 - squares[..., :, None] / 2
                own = -((z - z_pos) ** 2).sum(-1)[..., None] / 2
                logits = jax.numpy.where(jax.numpy.eye(z.shape[-2], dtype=bool), own, logits)
            chosen = jax.numpy.diagonal(logits, axis1=-2, axis2=-1)
            return (jax.nn.logsumexp(logits, -1) - chosen).mean((0, -1)).sum()

        return jax.tree.map(jax.numpy.negative, jax.grad(loss)(layers))


def embed(layers: Sequence[Any], depth: int, x: Any) -> Any:
    """What a loop over torch.nn.Linear does, on arrays of PyTorch and of JAX."""
    for i in range(depth):
        x = x @ layers[i].mT
        if len(layers) > depth:
            x = x + layers[depth + i][..., None, :]
    return x


def mild(runs: int) -> Problem:
    generator = torch.Generator().manual_seed(0)
    weights, task = gaussian_init([16] * 3, generator, (runs,)), GaussianTask.block(16, 8, 1.5)
    pairs = stack_pairs([task.sample(128, generator, (runs,)) for _ in range(BATCHES)])
    return Problem(list(weights), [], pairs, Objective(), 30.0)


def stiff() -> Problem:
    simulation = build(resolve({"preset": "authors-code", "case": 1, "runs": 1, "batch_size": 128}))
    batches = stack_pairs(list(itertools.islice(simulation.stream, BATCHES)))
    return Problem([*simulation.weights], [*simulation.biases], batches, simulation.objective, 10.0)


def small(loss: str) -> Problem:
    generator = torch.Generator().manual_seed(0)
    weights, task = gaussian_init([8] * 3, generator, (), 0.3), GaussianTask.block(8, 4, 1.5, views="two-sided")
    pairs = stack_pairs([task.sample(64, generator) for _ in range(4)])
    return Problem(list(weights), [], pairs, Objective(loss), 1000.0)


PROBLEMS = {"mild, 1 run": lambda: mild(1), "mild, 4 runs": lambda: mild(4), "stiff": stiff}
LONG = {
    **{f"dot, t = {until:g}": lambda until=until: stiff()._replace(until=until) for until in (100.0, 1000.0)},
    **{f"{loss}, t = 1000": lambda loss=loss: small(loss) for loss in ("infonce", "spectral", "vcreg", "barlow")},
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_sample_flow(benchmark, name):
    problem = PROBLEMS[name]()
    rest = (problem.start, problem.until, RTOL, ATOL)
    automatic = by_autograd(problem.loss)
    contenders = {
        "ours": problem.ours,
        "torchdiffeq": lambda: by_torchdiffeq(automatic, *rest),
        "torchdiffeq, closed form": lambda: by_torchdiffeq(problem.closed_form, *rest),
    }
    if installed("torchode"):
        contenders["torchode"] = lambda: by_torchode(automatic, *rest)
    if installed("diffrax"):
        contenders["diffrax"] = by_diffrax("Tsit5", problem.in_jax, *rest)
    for peer in ("torchode", "diffrax"):
        if peer not in contenders:
            benchmark.extra_info[peer] = ABSENT
    results = race(benchmark, contenders)
    for other in contenders:
        torch.testing.assert_close(results[other], results["ours"], **CLOSE)


@pytest.mark.parametrize("name", LONG)
def test_long_sample_flow(benchmark, name):
    problem = LONG[name]()
    contenders = {
        method or "default": lambda method=method: problem.ours(method) for method in (None, "DOP853", "CVODE")
    }
    results = race(benchmark, contenders, rounds=1)
    for other in contenders:
        torch.testing.assert_close(results[other], results["default"], **CLOSE)
