"""Gradient flow of toy networks as ordinary differential equations; flow time t = lr x steps."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics.solver import IMPLICIT, Progress, Time, check_times, integrate, run_by_run
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.networks import Weights, check_inputs, check_weights, end_to_end, layer_gradients, layer_jacobian
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.population import check_population, population_force, population_jacobian, population_loss


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
    The solver keeps each weight's error per step below atol + rtol |w|. Without an atol that is round-off of the scale
    the weight starts at, for ReLU 0.1 rtol of it (`absolute_tolerances`), so starts of any size escape on time. With
    atol 0 the error is relative, and modes that die keep their digits down to 1e-290. One layer starts from 1e-290 or
    more, L >= 2 from weights whose velocity does not underflow, |w|^(2L - 1) > 1e-300; smaller ones stay.
    Linear networks: DOP853 at rtol 1e-8. ReLU networks: RK45 at rtol 1e-4, for their right-hand side jumps
    whenever a sample crosses a kink, and the steps that a tighter rtol asks for grow as 1/rtol (measured).
    `progress(t, t_end)` is called after every solver step. Raises ValueError for unusable times or shapes,
    FlowFailed when the solver cannot go on, Interrupted on Ctrl-C.
    """
    objective, pairs = objective or Objective(), pairs.to(torch.float64)
    objective.check_views(pairs.views)
    check_weights(weights, biases)
    check_inputs(weights[0].to(torch.float64), pairs.anchor, pairs.positive)
    depth = len(weights)
    smooth = objective.activation == "linear"
    method = method or ("DOP853" if smooth else "RK45")
    rtol = (1e-8 if smooth else 1e-4) if rtol is None else rtol
    _check_weight_decay(weight_decay)

    def velocity(_t: float, parameters: Weights) -> list[Tensor]:
        with torch.inference_mode(objective.closed_form(biases)):  # a tenth of a small network's time is autograd's
            gradients = objective.gradient(parameters[:depth], pairs, parameters[depth:])
            return [-g - weight_decay * p for p, g in zip(parameters, gradients, strict=True)]

    def loss(_t: float, parameters: Weights) -> Tensor:
        return objective.value(parameters[:depth], pairs, parameters[depth:])

    meta = {"dynamics": "flow", "weight_decay": weight_decay}
    return integrate(weights, biases, velocity, loss, time, meta, rtol, atol, method, progress, smooth=smooth)


def population_flow(
    weights: Weights,
    task: GaussianTask,
    time: Time,
    *,
    objective: Objective | None = None,
    weight_decay: float = 0.0,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "LSODA",
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate the flow of a linear network in the limit of infinitely many Gaussian samples; see `sample_flow`.

    The flow is stiff once modes have separated, so the default is implicit, with the exact Jacobian; implicit
    methods (LSODA, BDF, Radau) take the runs one by one. `meta["jacobians"]` counts Jacobian evaluations.
    An explicit method (DOP853, RK45) takes all runs at once, which pays for short times.
    """
    objective, task = objective or Objective(), task.to(torch.float64)
    check_population(objective)
    objective.check_views(task.views)
    check_weights(weights)
    if weights[0].shape[-1] != task.dim:
        raise ValueError(
            f"the first layer has shape {tuple(weights[0].shape)}; it must read the task's {task.dim} inputs"
        )
    _check_weight_decay(weight_decay)
    if method in IMPLICIT and weights[0].ndim > 2:

        def flow(single: Weights, share: Progress | None) -> Trajectory:
            return population_flow(
                single,
                task,
                time,
                objective=objective,
                weight_decay=weight_decay,
                rtol=rtol,
                atol=atol,
                method=method,
                progress=share,
            )

        return run_by_run(flow, weights, progress)

    def velocity(_t: float, layers: Weights) -> list[Tensor]:
        product = end_to_end(layers)
        pulled = layer_gradients(layers, product @ population_force(product, task, objective))
        return [p - weight_decay * w for p, w in zip(pulled, layers, strict=True)] if weight_decay else list(pulled)

    def jacobian(_t: float, layers: Weights) -> Tensor:
        matrix = layer_jacobian(layers, *population_jacobian(end_to_end(layers), task, objective))
        matrix.diagonal().sub_(weight_decay)
        return matrix

    def loss(_t: float, layers: Weights) -> Tensor:
        return population_loss(end_to_end(layers), task, objective)

    meta = {"dynamics": "population", "weight_decay": weight_decay}
    return integrate(weights, (), velocity, loss, time, meta, rtol, atol, method, progress, jacobian)


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
    Two layers and more reach infinity in finite time along positive eigenvalues of X: the `time` of FlowFailed.
    """
    force = force.to(torch.float64)

    def loss(_t: float, layers: Weights) -> Tensor:
        product = end_to_end(layers)
        return -(product @ force * product).sum((-2, -1)) / 2

    if method == "expm":
        return _matrix_exponential(weights, force, time, loss)

    def velocity(_t: float, layers: Weights) -> list[Tensor]:
        return list(layer_gradients(layers, end_to_end(layers) @ force))

    return integrate(weights, (), velocity, loss, time, {"dynamics": "frozen"}, rtol, atol, method, None)


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
    return integrate(weights, (), velocity, loss, time, {"dynamics": "mode"}, rtol, atol, method, None)


def _check_weight_decay(weight_decay: float) -> None:
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight decay is {weight_decay}; it must be finite and at least 0")


def _matrix_exponential(
    weights: Weights, force: Tensor, time: Time, loss: Callable[[float, Weights], Tensor]
) -> Trajectory:
    if len(weights) != 1:
        raise ValueError(f"the closed form is for one layer, not {len(weights)}; use method='DOP853'")
    times, start = torch.from_numpy(check_times(time)), weights[0].to(torch.float64)
    force = force.expand(*start.shape[:-2], *force.shape[-2:])
    spread = times.view(-1, *[1] * force.ndim).to(force.device)
    path = start @ torch.linalg.matrix_exp(spread * force)
    if not torch.isfinite(path).all():
        raise ValueError(f"exp(X t) overflows before t = {float(times[-1]):.6g}; ask for an earlier time")
    losses = torch.stack([loss(float(t), (w,)) for t, w in zip(times, path, strict=True)])
    return Trajectory(times, (path,), losses, (), {"dynamics": "frozen", "method": "expm"})
