"""Gradient flow of toy networks as ordinary differential equations; flow time t = lr x steps."""

import math
import time as clock
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from dyncollapse.gaussian import GaussianTask, Pairs
from dyncollapse.networks import Weights, check_weights, end_to_end, layer_gradients
from dyncollapse.objective import Objective
from dyncollapse.population import check_population, population_force, population_loss
from dyncollapse.trajectory import Interrupted, Trajectory

Time = float | Sequence[float] | Tensor
Progress = Callable[[float, float], None]

# A flow counts as at rest once no weight would move by more than this many rtol of the largest in a unit of time
# (ours): below that, the speed is the solver's own noise.
REST_SPEED = 10


class FlowFailed(RuntimeError):
    """The solver could not go on; `trajectory` holds what was recorded before."""

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        """Keep the partial record."""
        super().__init__(message)
        self.trajectory = trajectory


def sample_flow(
    weights: Weights,
    pairs: Pairs,
    time: Time,
    *,
    objective: Objective | None = None,
    biases: Sequence[Tensor] = (),
    weight_decay: float = 0.0,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate dW/dt = -dL/dW with L averaged over fixed batches, from `weights` at t = 0 to the given time(s).

    `pairs` holds one batch (*runs, n, d) or M of them (M, *runs, n, d). Everything is computed in float64.
    `time` is a scalar or an increasing vector; states are returned at exactly these times. `meta` reports the
    solver and the time from which it was at rest, or None; the record has the drift of the conserved C.
    Linear networks: DOP853 at rtol 1e-8. ReLU networks: RK45 at rtol 1e-4, for their right-hand side jumps
    whenever a sample crosses a kink, and the steps that a tighter rtol asks for grow as 1/rtol (measured).
    `progress(t, t_end)` is called after every solver step. Raises ValueError for unusable times or shapes,
    FlowFailed when the solver cannot go on, Interrupted on Ctrl-C.
    """
    objective, pairs = objective or Objective(), pairs.to(torch.float64)
    objective.check_views(pairs.views)
    depth = len(weights)
    smooth = objective.activation == "linear"
    method = method or ("DOP853" if smooth else "RK45")
    rtol = rtol or (1e-8 if smooth else 1e-4)

    def velocity(_t: float, parameters: Weights) -> list[Tensor]:
        gradients = objective.gradient(parameters[:depth], pairs, parameters[depth:])
        return [-g - weight_decay * p for p, g in zip(parameters, gradients, strict=True)]

    def loss(_t: float, parameters: Weights) -> Tensor:
        return objective.value(parameters[:depth], pairs, parameters[depth:])

    meta = {"dynamics": "flow", "weight_decay": weight_decay}
    return _integrate(weights, biases, velocity, loss, time, meta, rtol, atol, method, progress)


def population_flow(
    weights: Weights,
    task: GaussianTask,
    time: Time,
    *,
    objective: Objective | None = None,
    weight_decay: float = 0.0,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate the flow of a linear network in the limit of infinitely many Gaussian samples; see `sample_flow`."""
    objective, task = objective or Objective(), task.to(torch.float64)
    objective.check_views(task.views)
    check_population(objective)

    def velocity(_t: float, layers: Weights) -> list[Tensor]:
        product = end_to_end(layers)
        pulled = layer_gradients(layers, product @ population_force(product, task, objective))
        return [p - weight_decay * w for p, w in zip(pulled, layers, strict=True)]

    def loss(_t: float, layers: Weights) -> Tensor:
        return population_loss(end_to_end(layers), task, objective)

    meta = {"dynamics": "population", "weight_decay": weight_decay}
    return _integrate(weights, (), velocity, loss, time, meta, rtol, atol, method, progress)


def frozen_flow(
    weights: Weights,
    force: Float[Tensor, "*runs d d"],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
) -> Trajectory:
    """Integrate the flow with a constant force X, any depth; its loss is the potential -tr(P X P^T) / 2.

    One layer has the closed form of Theorem 1: `method="expm"` uses it instead of the solver.
    Two layers and more reach infinity in finite time along positive eigenvalues of X: FlowFailed says when.
    """
    force = force.to(torch.float64)

    def loss(_t: float, layers: Weights) -> Tensor:
        product = end_to_end(layers)
        return -(product @ force * product).sum((-2, -1)) / 2

    if method == "expm":
        return _matrix_exponential(weights, force, time, loss)

    def velocity(_t: float, layers: Weights) -> list[Tensor]:
        return list(layer_gradients(layers, end_to_end(layers) @ force))

    return _integrate(weights, (), velocity, loss, time, {"dynamics": "frozen"}, rtol, atol, method, None)


def mode_flow(
    layer_values: Sequence[Float[Tensor, "*runs k"]],
    force: Float[Tensor, " k"] | Callable[[float], Float[Tensor, " k"]],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
) -> Trajectory:
    """Integrate Theorem 3's ODE for the layers' singular values, one (*runs, k) tensor per layer.

    ds_l/dt = x_k p_k^2 / s_l with p_k = prod_l s_l, so s1' = s1 s2^2 x for two layers; x_k = v_k^T X v_k is
    constant or a function of t. Exact when adjacent layers are aligned. The trajectory's weights are the
    diagonal matrices diag(s_l); its loss is -sum_k x_k p_k^2 / 2, a potential only for constant x.
    """
    at = force if callable(force) else lambda _t: force

    def velocity(t: float, layers: Weights) -> list[Tensor]:
        s = [w.diagonal(dim1=-2, dim2=-1) for w in layers]
        push = at(t) * math.prod(s)
        others = [math.prod(s[:i] + s[i + 1 :], start=torch.ones_like(push)) for i in range(len(s))]
        return [torch.diag_embed(push * other) for other in others]

    def loss(t: float, layers: Weights) -> Tensor:
        p = end_to_end(layers).diagonal(dim1=-2, dim2=-1)
        return -(at(t) * p.square()).sum(-1) / 2

    weights = tuple(torch.diag_embed(s) for s in layer_values)
    return _integrate(weights, (), velocity, loss, time, {"dynamics": "mode"}, rtol, atol, method, None)


class _Vector:
    """All parameters of a network as the one float64 vector that solve_ivp wants, and back."""

    def __init__(self, weights: Weights, biases: Sequence[Tensor]) -> None:
        check_weights(weights, biases)
        parameters = [p.detach().to(torch.float64) for p in (*weights, *biases)]
        self.depth, self.device = len(weights), weights[0].device
        self.shapes, self.sizes = [p.shape for p in parameters], [p.numel() for p in parameters]
        self.start = self.pack(parameters)

    @staticmethod
    def pack(parameters: Sequence[Tensor]) -> np.ndarray:
        return torch.cat([p.flatten() for p in parameters]).cpu().numpy()

    def unpack(self, states: np.ndarray) -> Weights:
        """Cut a vector, or a path of them (t, n), into parameters with the same leading axis."""
        parts = torch.from_numpy(np.ascontiguousarray(states)).to(self.device).split(self.sizes, dim=-1)
        return tuple(p.view(*states.shape[:-1], *shape) for p, shape in zip(parts, self.shapes, strict=True))


def _integrate(
    weights: Weights,
    biases: Sequence[Tensor],
    velocity: Callable[[float, Weights], list[Tensor]],
    loss: Callable[[float, Weights], Tensor],
    time: Time,
    meta: dict[str, Any],
    rtol: float,
    atol: float | None,
    method: str,
    progress: Progress | None,
) -> Trajectory:
    """Hand the flow to solve_ivp and turn what it reached, all or part of the way, into a Trajectory."""
    times, vector, started = _times(time), _Vector(weights, biases), clock.perf_counter()
    # Entries far below the start still deserve digits: modes that decay are what this program is about.
    atol = rtol * 1e-2 if atol is None else atol
    reached: list[tuple[float, np.ndarray]] = []

    def derivative(t: float, y: np.ndarray) -> np.ndarray:
        return vector.pack(velocity(t, vector.unpack(y)))

    def at_rest(t: float, y: np.ndarray) -> float:
        return float(np.abs(derivative(t, y)).max() / max(np.abs(y).max(), np.finfo(float).tiny) - REST_SPEED * rtol)

    def watch(t: float, y: np.ndarray) -> float:
        # solve_ivp evaluates events once per accepted step, which makes this the place to keep what is reached.
        if len(reached) < len(times) and t >= times[len(reached)]:
            reached.append((t, y.copy()))
        if progress:
            progress(t, times[-1])
        return at_rest(t, y)

    def trajectory(moments: np.ndarray, states: np.ndarray, **extra: Any) -> Trajectory:
        path = vector.unpack(states.reshape(-1, len(vector.start)))
        losses = [loss(t, tuple(p[i] for p in path)) for i, t in enumerate(moments)]
        record = {"method": method, "rtol": rtol, "atol": atol, "seconds": clock.perf_counter() - started, **extra}
        recorded = torch.stack(losses) if losses else torch.empty(0)
        layers, shifts = path[: vector.depth], path[vector.depth :]
        return Trajectory(torch.from_numpy(moments.copy()), layers, recorded, shifts, meta | record)

    if times[-1] == 0:
        rest_time = 0.0 if at_rest(0.0, vector.start) <= 0 else None
        return trajectory(times, vector.start[None], rest_time=rest_time, evaluations=1)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a blow-up is reported below, in words
            solution = solve_ivp(
                derivative, (0.0, times[-1]), vector.start, method, t_eval=times, rtol=rtol, atol=atol, events=watch
            )
    except KeyboardInterrupt:
        moments, states = [np.array(part) for part in zip(*reached, strict=True)] if reached else (np.empty(0),) * 2
        raise Interrupted(trajectory(moments, states)) from None
    moments, states = np.asarray(solution.t, dtype=float), np.asarray(solution.y, dtype=float).T
    if not solution.success:
        raise FlowFailed(
            f"the flow cannot be continued beyond the last recorded time {max(moments, default=0.0):.6g} of "
            f"{times[-1]:.6g}: {solution.message} A weight that reaches infinity in finite time does this",
            trajectory(moments, states),
        )
    crossings = solution.t_events[0]
    resting = at_rest(moments[-1], states[-1]) <= 0
    rest_time = (float(crossings[-1]) if len(crossings) else 0.0) if resting else None
    return trajectory(moments, states, rest_time=rest_time, evaluations=int(solution.nfev))


def _matrix_exponential(
    weights: Weights, force: Tensor, time: Time, loss: Callable[[float, Weights], Tensor]
) -> Trajectory:
    if len(weights) != 1:
        raise ValueError(f"the closed form is for one layer, not {len(weights)}; use method='DOP853'")
    times, start = torch.from_numpy(_times(time)), weights[0].to(torch.float64)
    force = force.expand(*start.shape[:-2], *force.shape[-2:])
    spread = times.view(-1, *[1] * force.ndim).to(force.device)
    path = start @ torch.linalg.matrix_exp(spread * force)
    if not torch.isfinite(path).all():
        raise ValueError(f"exp(X t) overflows before t = {float(times[-1]):.6g}; ask for an earlier time")
    losses = torch.stack([loss(float(t), (w,)) for t, w in zip(times, path, strict=True)])
    return Trajectory(times, (path,), losses, (), {"dynamics": "frozen", "method": "expm"})


def _times(time: Time) -> np.ndarray:
    times = np.atleast_1d(np.asarray(time, dtype=float))
    increasing = times.ndim == 1 and len(times) > 0 and bool((np.diff(times) > 0).all())
    if not (increasing and np.isfinite(times).all() and times[0] >= 0):
        raise ValueError(f"times are {time}; give one finite number or an increasing vector, none below 0")
    return times
