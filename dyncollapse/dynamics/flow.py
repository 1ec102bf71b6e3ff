"""Gradient flow of toy networks as ordinary differential equations; flow time t = lr x steps."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics._population_field import PopulationField
from dyncollapse.dynamics.equation import Equation, Field
from dyncollapse.dynamics.runs import run_by_run
from dyncollapse.dynamics.solver import (
    IMPLICIT,
    MOST_EVALUATIONS,
    Progress,
    Solver,
    Time,
    check_times,
    integrate,
    stiff_method,
)
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.conversion import as_tensor
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
    max_evaluations: int = MOST_EVALUATIONS,
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate dW/dt = -dL/dW with L averaged over fixed batches, from `weights` at t = 0 (Lemmas 1 to 3).

    Everything is computed in float64. One layer starts from 1e-290 or more, L >= 2 layers from weights whose velocity
    does not underflow, |w|^(2L - 1) > 1e-300; smaller ones stay.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        pairs: One batch (*runs, n, d), or M of them (M, *runs, n, d).
        time: Flow time, t = lr x steps of SGD: a scalar or an increasing vector.
        objective: What is minimised; Eq. 2 unless given.
        biases: One tensor (*runs, out) per layer, or none.
        weight_decay: Its product with the weights is subtracted from the velocity.
        rtol: Relative tolerance: 1e-8 for linear networks, 1e-4 for ReLU. There the velocity jumps whenever a sample
            crosses a kink, and the number of steps was measured to grow as 1 / rtol.
        atol: Absolute tolerance. The solver keeps each weight's error per step below atol + rtol |w|. The default is
            the round-off of the scale that the weight starts at, for ReLU 0.1 rtol of that scale, so that starts of any
            size escape on time. With 0 the error is relative, and modes that die keep their digits down to 1e-290.
        method: Of SciPy's solve_ivp: DOP853 for linear networks, RK45 for ReLU.
        max_evaluations: Evaluations of the velocity after which the flow is given up.
        progress: Called with (t, t_end) after every solver step.

    Returns:
        The states at exactly the given times. `meta` has the solver's settings and counts, and as "rest_time" the time
        from which the flow was at rest, or None.

    Raises:
        ValueError: For unusable times, shapes or settings.
        FlowFailed: When the solver cannot go on, and when `max_evaluations` are used up.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        Jing et al. 2022, Lemmas 1 to 3; docs/explanation/theory.md, section 2.

    Examples:
        >>> task = GaussianTask.block(2, 1, aug_strength=4.0)  # the second input is augmented beyond the threshold of 1
        >>> path = sample_flow((0.1 * torch.eye(2),), task.sample(64, torch.Generator().manual_seed(0)), [0.0, 20.0])
        >>> (path.singular_values > 0.1 + 1e-6).tolist()  # both start at 0.1
        [[False, False], [True, False]]
    """
    objective, pairs = objective or Objective(), pairs.to(torch.float64)
    objective.check_views(pairs.views)
    check_weights(weights, biases)
    check_inputs(weights[0].to(torch.float64), pairs.anchor, pairs.positive)
    start = [p.to(torch.float64) for p in (*weights, *biases)]
    objective.check_start(tuple(start[: len(weights)]), pairs, start[len(weights) :])
    depth = len(weights)
    smooth = objective.activation == "linear"
    method = method or ("DOP853" if smooth else "RK45")
    rtol = (1e-8 if smooth else 1e-4) if rtol is None else rtol
    _check_weight_decay(weight_decay)

    def velocity(_t: float, parameters: Weights) -> list[Tensor]:
        # Autograd's bookkeeping would be a tenth of a small network's time.
        with torch.inference_mode(objective.closed_form):
            gradients = objective.gradient(parameters[:depth], pairs, parameters[depth:])
            return [-g - weight_decay * p for p, g in zip(parameters, gradients, strict=True)]

    def loss(_t: float, parameters: Weights) -> Tensor:
        return objective.value(parameters[:depth], pairs, parameters[depth:])

    meta = {"dynamics": "flow", "weight_decay": weight_decay}
    equation, solver = Equation(velocity, loss, smooth=smooth), Solver(method, rtol, atol, max_evaluations)
    return integrate(weights, biases, equation, time, solver=solver, meta=meta, progress=progress)


def population_flow(
    weights: Weights,
    task: GaussianTask,
    time: Time,
    *,
    objective: Objective | None = None,
    weight_decay: float = 0.0,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str | None = None,
    max_evaluations: int = MOST_EVALUATIONS,
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate the flow of a linear network in the limit of infinitely many Gaussian samples.

    The flow is stiff once modes have separated, so the default method is implicit: CVODE, which multiplies by the exact
    Jacobian and never stores it. LSODA, BDF and Radau store it, and take longer beyond some hundred weights. Implicit
    methods integrate the runs one by one. Explicit ones (DOP853, RK45) integrate all runs at once, which is faster for
    short times.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        task: Covariances and view convention.
        time: Flow time, a scalar or an increasing vector.
        objective: "infonce" (unless given), "dot" or "spectral", with linear layers.
        weight_decay: Its product with the weights is subtracted from the velocity.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: CVODE unless given (LSODA, with a warning, where scikit-sundae is not installed), or a method of SciPy's
            solve_ivp.
        max_evaluations: Evaluations of the velocity, per run, after which the flow is given up.
        progress: Called with (t, t_end) after every solver step.

    Returns:
        The states at exactly the given times; `meta["jacobian_products"]` counts products with the Jacobian, or
        "jacobians" the Jacobians of a method that stores them.

    Raises:
        ValueError: For unusable times, shapes or settings, and losses without a population limit in closed form.
        FlowFailed: When the solver cannot go on, and when `max_evaluations` are used up.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        docs/explanation/beyond-the-paper.md, section 5a.

    Examples:
        >>> task = GaussianTask.block(2, 1, aug_strength=2.0)  # beyond the threshold of 1
        >>> path = population_flow((0.1 * torch.eye(2),), task, 50.0)
        >>> bool(path.singular_values[-1, 1] < 1e-6)
        True
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
    method = stiff_method() if method is None else method
    if method in IMPLICIT and weights[0].ndim > 2:
        alone = partial(
            population_flow,
            task=task,
            time=time,
            objective=objective,
            weight_decay=weight_decay,
            rtol=rtol,
            atol=atol,
            method=method,
            max_evaluations=max_evaluations,
        )
        return run_by_run(lambda run, share: alone(run, progress=share), weights, progress)

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
    field = None
    if method == "CVODE":
        kernel = PopulationField([tuple(w.shape) for w in weights], task, objective, weight_decay)
        field = Field(kernel.velocity, kernel.linearise, preconditioned=kernel.preconditioned)
    equation, solver = Equation(velocity, loss, jacobian, field), Solver(method, rtol, atol, max_evaluations)
    return integrate(weights, (), equation, time, solver=solver, meta=meta, progress=progress)


def frozen_flow(
    weights: Weights,
    force: Float[Tensor, "*runs d d"],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
) -> Trajectory:
    """Integrate the flow under a constant force X, any depth; its loss is the potential -tr(P X P^T) / 2 (Theorem 1).

    Args:
        weights: One tensor (*runs, out, in) per layer.
        force: X, symmetric.
        time: Flow time, a scalar or an increasing vector.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: Of SciPy's solve_ivp; "expm" takes one layer's closed form W(0) e^(X t) instead.

    Returns:
        The states at exactly the given times.

    Raises:
        ValueError: For unusable times or settings, "expm" with several layers, and where e^(X t) overflows.
        FlowFailed: Where two layers or more reach infinity along positive eigenvalues of X; its `time` says when.

    References:
        Jing et al. 2022, Theorem 1.

    Examples:
        >>> path = frozen_flow((torch.ones(1, 1),), -torch.eye(1), 1.0, method="expm")
        >>> round(float(path.product), 4)  # 1 / e
        0.3679
    """
    force = force.to(torch.float64)

    def loss(_t: float, layers: Weights) -> Tensor:
        product = end_to_end(layers)
        return -(product @ force * product).sum((-2, -1)) / 2

    if method == "expm":
        return _matrix_exponential(weights, force, time, loss)

    def velocity(_t: float, layers: Weights) -> list[Tensor]:
        return list(layer_gradients(layers, end_to_end(layers) @ force))

    solver = Solver(method, rtol, atol)
    return integrate(weights, (), Equation(velocity, loss), time, solver=solver, meta={"dynamics": "frozen"})


def mode_flow(
    layer_values: Sequence[Float[Tensor, "*runs k"]],
    force: Float[Tensor, " k"] | Callable[[float], Float[Tensor, " k"]],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
) -> Trajectory:
    """Integrate the flow of the layers' singular values (Theorem 3), which is exact for aligned layers.

    ds_l/dt = x_k p_k^2 / s_l with p_k = prod_l s_l, so s1' = s1 s2^2 x for two layers.

    Args:
        layer_values: Singular values at t = 0, one tensor (*runs, k) per layer.
        force: x_k = v_k^T X v_k (k,), constant or a function of flow time.
        time: Flow time, a scalar or an increasing vector.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: Of SciPy's solve_ivp.

    Returns:
        Diagonal matrices diag(s_l) for weights; the loss is -sum_k x_k p_k^2 / 2, a potential only for constant x.

    Raises:
        ValueError: For unusable times or settings.
        FlowFailed: Where a value reaches infinity; its `time` says when.

    References:
        Jing et al. 2022, Theorem 3.

    Examples:
        >>> path = mode_flow([torch.ones(1), torch.ones(1)], -torch.ones(1), 1.0)  # p' = -2 p^2 from p = 1
        >>> round(float(path.product), 6)
        0.333333
    """

    def at(t: float) -> Tensor:
        return as_tensor(force(t), "force") if callable(force) else force

    def velocity(t: float, layers: Weights) -> list[Tensor]:
        s = [w.diagonal(dim1=-2, dim2=-1) for w in layers]
        push = at(t) * math.prod(s)
        others = [math.prod(s[:i] + s[i + 1 :], start=torch.ones_like(push)) for i in range(len(s))]
        return [torch.diag_embed(push * other) for other in others]

    def loss(t: float, layers: Weights) -> Tensor:
        p = end_to_end(layers).diagonal(dim1=-2, dim2=-1)
        return -(at(t) * p.square()).sum(-1) / 2

    weights = tuple(torch.diag_embed(s) for s in layer_values)
    solver = Solver(method, rtol, atol)
    return integrate(weights, (), Equation(velocity, loss), time, solver=solver, meta={"dynamics": "mode"})


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
