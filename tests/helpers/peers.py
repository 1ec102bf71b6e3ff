"""Gradient flows handed to other solvers: torchdiffeq, torchode and, with the same formulas in JAX, diffrax."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Layers = Sequence[Tensor]
Velocity = Callable[[Layers], Layers]
ABSENT = "not installed; pip install -e '.[peers]'"


def by_autograd(loss: Callable[[Layers], Tensor]) -> Velocity:
    """The velocity as most people would write it: a loss, and PyTorch's gradient."""

    def velocity(layers: Layers) -> Layers:
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in layers]
            return [-g for g in torch.autograd.grad(loss(leaves), leaves)]

    return velocity


def by_torchdiffeq(velocity: Velocity, start: Layers, until: float, rtol: float, atol: float) -> Layers:
    """Integrate by torchdiffeq's dopri5."""
    from torchdiffeq import odeint

    times = torch.tensor([0.0, until], dtype=torch.float64)
    path = odeint(lambda _t, y: tuple(velocity(y)), tuple(start), times, rtol=rtol, atol=atol, method="dopri5")
    return [layer[-1] for layer in path]


def by_torchode(velocity: Velocity, start: Layers, until: float, rtol: float, atol: float) -> Layers:
    """Integrate by torchode's Tsit5, which has a batch axis of its own: of size 1 here."""
    import torchode

    shapes = [w.shape for w in start]
    sizes = [w.numel() for w in start]

    def flat(_t: Tensor, y: Tensor) -> Tensor:
        layers = [part.view(shape) for part, shape in zip(y[0].split(sizes), shapes, strict=True)]
        return torch.cat([v.flatten() for v in velocity(layers)])[None]

    term = torchode.ODETerm(flat)
    control = torchode.IntegralController(atol=atol, rtol=rtol, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), control)
    problem = torchode.InitialValueProblem(
        y0=torch.cat([w.flatten() for w in start])[None], t_eval=torch.tensor([[0.0, until]], dtype=torch.float64)
    )
    with torch.no_grad():
        solution = solver.solve(problem)
    assert int(solution.status[0]) == 0, f"torchode ended with status {solution.status}"
    return [part.view(shape) for part, shape in zip(solution.ys[0, -1].split(sizes), shapes, strict=True)]


def by_diffrax(
    method: str, velocity: Callable[[Any], Any], start: Layers, until: float, rtol: float, atol: float
) -> Callable[[], Layers]:
    """A function that integrates by a solver of diffrax, compiled: that takes seconds once, which are not counted.

    Args:
        method: "Kvaerno5" for stiff flows, "Tsit5" for others.
        velocity: Of JAX arrays.
        start: Initial weights.
        until: Flow time.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """
    import diffrax
    import jax

    with one_core():
        jax.devices()  # starts as many threads as there are cores
    jax.config.update("jax_enable_x64", True)

    @jax.jit
    def solve(y: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda _t, y, _args: velocity(y)),
            getattr(diffrax, method)(),
            0.0,
            until,
            None,
            y,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=10**7,
            adjoint=diffrax.ForwardMode(),  # nothing is differentiated, so no checkpoints
        ).ys

    layers = tuple(jax.numpy.asarray(w.numpy()) for w in start)
    compiled = solve.lower(layers).compile()

    def integrate() -> Layers:
        return [torch.from_numpy(jax.device_get(w[-1]).copy()) for w in compiled(layers)]

    return integrate


def installed(module: str) -> bool:
    """Whether a peer is there: torchode and diffrax belong to the extra `peers`."""
    return find_spec(module) is not None


@contextmanager
def one_core() -> Iterator[None]:
    """Let the threads that are started within the block use one core, where the system allows it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
