"""Flows of toy networks as ordinary differential equations; flow time t = lr x steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dyncollapse.dynamics._on_arrays import on_arrays
from dyncollapse.dynamics._population_field import PopulationField
from dyncollapse.dynamics._sample_field import SampleField
from dyncollapse.dynamics.distillation import moment_equation, velocities
from dyncollapse.dynamics.equation import Equation, Field
from dyncollapse.dynamics.runs import pairs_of_run, recorded, run_by_run
from dyncollapse.dynamics.solver import (
    IMPLICIT,
    MOST_EVALUATIONS,
    FlowFailed,
    Progress,
    Solver,
    Time,
    cvode_is_installed,
    integrate,
    stiff_method,
)
from dyncollapse.dynamics.statistics import Record
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory
from dyncollapse.model.networks import Weights, check_inputs, check_weights, end_to_end, layer_gradients, layer_jacobian
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import OnlineMoments, SelfDistillation, full_state
from dyncollapse.runtime.process import check_count
from dyncollapse.theory.limits import check_weight_decay
from dyncollapse.theory.population import check_population_limit, population_force, population_jacobian, population_loss

# Default rtol where the velocity jumps: in ReLU networks, and at the hinge of vicreg. That flow slides along many kinks
# (a deviation of 1 in each coordinate, view and batch) until it rests, and steps over a kink shrink with rtol.
KINKED_RTOL, HINGED_RTOL = 1e-4, 1e-3


def sample_flow(
    weights: Weights,
    pairs: Pairs,
    time: Time,
    *,
    objective: Objective | SelfDistillation | None = None,
    biases: Sequence[Tensor] = (),
    predictor: Tensor | None = None,
    target: Sequence[Tensor] = (),
    weight_decay: float = 0.0,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    max_evaluations: int = MOST_EVALUATIONS,
    record: Record | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Trajectory:
    """Integrate dW/dt = -dL/dW with L averaged over fixed batches, from `weights` at t = 0 (Lemmas 1 to 3).

    Everything is computed in float64, and the runs are taken one by one, each with its own steps. One layer starts from
    1e-290 or more, L >= 2 layers from weights whose velocity does not underflow, |w|^(2L - 1) > 1e-300; smaller ones
    stay. Meanwhile NumPy and SciPy have one thread in this process, unless a layer is wider than 512.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        pairs: One batch (*runs, n, d), or M of them (M, *runs, n, d).
        time: Flow time, t = lr x steps of SGD: a scalar or an increasing vector.
        objective: What is minimised; Eq. 2 unless given. SelfDistillation for BYOL and SimSiam, whose flow descends no
            function.
        biases: One tensor (*runs, out) per layer, or none.
        predictor: Where the predictor (*runs, m, m) of SelfDistillation starts; see `balanced_predictor`.
        target: Where the layers of BYOL's target start; as the weights unless given.
        weight_decay: Its product with the parameters is subtracted from the velocity; not so for a target.
        rtol: Relative tolerance: 1e-8 for smooth losses of linear networks, 1e-4 for ReLU, 1e-3 for vicreg. In the last
            two cases the velocity jumps at kinks (a sample crosses a ReLU's, a deviation the hinge's), and the number
            of steps was measured to grow as 1 / rtol. Below the default one run is tried at the default first. The
            flow is refused if the number of its steps times default / rtol exceeds what `max_evaluations` allows.
        atol: Absolute tolerance. The solver keeps each weight's error per step below atol + rtol |w|. The default is
            the round-off of the scale that the weight starts at, over kinks 0.1 rtol of that scale, so that starts of
            any size escape on time. With 0 the error is relative, and modes that die keep their digits down to 1e-290.
        method: CVODE or one of SciPy's solve_ivp. Unless given it is RK45 over kinks, and otherwise DOP853. CVODE goes
            on for that once stability alone keeps its steps short, many are left, and nothing grows from below the
            tolerance. Only linear networks under losses with a `force` are watched for that, where scikit-sundae is
            installed. CVODE from the start may step over modes that grow from below its tolerance.
        max_evaluations: Evaluations of the velocity, per run, after which the flow is given up.
        record: Statistics to keep beside the weights, as in `train`.
        progress: Called with (t, t_end) after every solver step.
        threads: CPU threads that take runs, by default as many as PyTorch has; the result does not depend on it.

    Returns:
        The states at exactly the given times. `meta` has the solver's settings and counts, as "rest_time" the time
        from which the flow was at rest, or None, and as "stiff_from" and "stiff_until" the times between which CVODE
        went on for DOP853, whose own steps at the bound of stability never rest.

    Raises:
        ValueError: For unusable times, shapes or settings.
        FlowFailed: When the solver cannot go on, and when `max_evaluations` are used up.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        Jing et al. 2022, Lemmas 1 to 3; docs/explanation/theory.md, section 2.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 1, aug_strength=4.0)  # the second input is augmented beyond the threshold of 1
        >>> path = sample_flow((0.1 * torch.eye(2),), task.sample(64, torch.Generator().manual_seed(0)), [0.0, 20.0])
        >>> (path.singular_values > 0.1 + 1e-6).tolist()  # both start at 0.1
        [[False, False], [True, False]]
    """
    check_count("threads", threads)
    objective, pairs = objective or Objective(), pairs.to(torch.float64)
    objective.check_views(pairs.views)
    check_weights(weights, biases)
    weights, others = _in_double(objective, weights, predictor, target, biases)
    check_inputs(weights[0], pairs.anchor, pairs.positive)
    objective.check_start(weights, pairs, others)
    check_weight_decay(weight_decay)
    smooth = objective.smooth(len(weights))
    switches = method is None and smooth and _is_watched(objective)
    method = method or ("DOP853" if smooth else "RK45")
    default = 1e-8 if smooth else HINGED_RTOL if objective.loss == "vicreg" else KINKED_RTOL
    solver = Solver(method, default if rtol is None else rtol, atol, max_evaluations, switches)
    meta = {"dynamics": "flow", "weight_decay": weight_decay}

    def one_run(index: tuple[int, ...], progress: Progress | None, solver: Solver = solver) -> Trajectory:
        own = pairs_of_run(pairs, index)
        start, beside = tuple(w[index] for w in weights), [p[index] for p in others]
        if smooth and isinstance(objective, SelfDistillation):
            equation = moment_equation(start, OnlineMoments.of_pairs(own, 0), objective, weight_decay)
        else:
            equation = _sample_equation(start, beside, own, objective, weight_decay)
        return integrate(start, beside, equation, time, solver=solver, meta=meta, progress=progress)

    def all_runs() -> Trajectory:
        runs = weights[0].shape[:-2]
        if not smooth:
            _check_kinks(lambda trial: one_run((0,) * len(runs), None, trial), solver, default)
        several = min(math.prod(runs), threads or torch.get_num_threads()) if weights[0].device.type == "cpu" else 1
        return run_by_run(one_run, runs, progress, several)

    return recorded(all_runs, record, weights)


def _check_kinks(flow: Callable[[Solver], Trajectory], solver: Solver, low: float) -> None:
    """Refuse a flow over kinks that would take more evaluations than it may, judged by a run at the rtol `low`."""
    if solver.rtol >= low:
        return
    try:
        tried = flow(replace(solver, rtol=low)).meta["evaluations"]
    except FlowFailed:  # the flow itself will say it
        return
    except Interrupted:  # what the trial reached is not what was asked for
        raise KeyboardInterrupt from None
    expected = tried * low / solver.rtol
    if expected > solver.max_evaluations:
        raise ValueError(
            f"the velocity jumps at kinks, and steps over them grow as 1 / rtol: a run takes {tried} evaluations at "
            f"rtol {low:g}, so about {expected:.1g} at {solver.rtol:g}, and max_evaluations is "
            f"{solver.max_evaluations}; give an rtol of at least {tried * low / solver.max_evaluations:.1g}, "
            "an earlier time, or more evaluations"
        )


def _in_double(
    objective: Objective | SelfDistillation,
    weights: Weights,
    predictor: Tensor | None,
    target: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
) -> tuple[Weights, Weights]:
    """Weights and the parameters beside them, in float64; ValueError for those that do not fit."""
    weights = tuple(w.to(torch.float64) for w in weights)
    predictor = None if predictor is None else predictor.to(torch.float64)
    target, biases = ([p.to(torch.float64) for p in some] for some in (target, biases))
    return weights, full_state(objective, weights, predictor, target, biases)


def _sample_equation(
    weights: Weights,
    others: Sequence[Tensor],
    pairs: Pairs,
    objective: Objective | SelfDistillation,
    weight_decay: float,
) -> Equation:
    """The flow of one run."""
    depth, smooth = len(weights), objective.smooth(len(weights))

    def velocity(_t: float, parameters: Weights) -> list[Tensor]:
        # Autograd's bookkeeping would be a tenth of a small network's time.
        with torch.inference_mode(objective.closed_form):
            gradients = objective.gradient(parameters[:depth], pairs, parameters[depth:])
            return velocities(objective, depth, parameters, gradients, weight_decay)

    def tangent(_t: float, parameters: Weights) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        assert isinstance(objective, Objective)
        along = objective.curvature(parameters[:depth], pairs, parameters[depth:])
        return lambda direction: [-c - weight_decay * v for c, v in zip(along(direction), direction, strict=True)]

    def loss(_t: float, parameters: Weights) -> Tensor:
        return objective.value(parameters[:depth], pairs, parameters[depth:])

    if not isinstance(objective, Objective):
        return Equation(velocity, loss, smooth=smooth)
    own = None if isinstance(objective.loss, str) else objective.name
    along = tangent if smooth and objective.has_force else None
    equation = Equation(velocity, loss, tangent=along, smooth=smooth, own_loss=own)
    if not on_arrays(objective, weights, others, pairs):
        return equation
    compiled = SampleField(weights, pairs, objective, weight_decay, biased=bool(others))
    field = Field(compiled.velocity, compiled.linearise)
    return replace(equation, loss=lambda _t, parameters: compiled.loss(parameters), field=field)


def population_flow(
    weights: Weights,
    task: Task,
    time: Time,
    *,
    objective: Objective | SelfDistillation | None = None,
    predictor: Tensor | None = None,
    target: Sequence[Tensor] = (),
    weight_decay: float = 0.0,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str | None = None,
    max_evaluations: int = MOST_EVALUATIONS,
    record: Record | None = None,
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate the flow of a linear network in the limit of infinitely many samples.

    The flow is stiff once modes have separated, so the default method is implicit: CVODE, which multiplies by the exact
    Jacobian and never stores it. LSODA, BDF and Radau store it, and take longer beyond some hundred weights. Implicit
    methods integrate the runs one by one, explicit ones (DOP853, RK45) all at once, which is faster for short times.
    Meanwhile NumPy and SciPy have one thread in this process, unless a layer is wider than 512.

    Implicit methods may step over modes that grow from below the tolerance, and stay at a saddle, where a layer starts
    many orders of magnitude smaller than the others. The default looks for such modes. If one is found, the flow begins
    again with DOP853, which follows them, until CVODE sees them. Losses of your own, BYOL and SimSiam are not watched.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        task: Covariances or moments, and view convention. For spectral, vcreg and barlow the limit is exact for any
            distribution with these moments, for infonce and dot for Gaussian samples.
        time: Flow time, a scalar or an increasing vector.
        objective: "infonce" (unless given), "dot", "spectral", "vcreg" or "barlow", or SelfDistillation, with linear
            layers.
        predictor: Where the predictor (*runs, m, m) of SelfDistillation starts; see `balanced_predictor`.
        target: Where the layers of BYOL's target start; as the weights unless given.
        weight_decay: Its product with the parameters is subtracted from the velocity; not so for a target.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: CVODE, watched as above, unless given (LSODA, unwatched and with a warning, where scikit-sundae is not
            installed); or CVODE, unwatched, or a method of SciPy's solve_ivp.
        max_evaluations: Evaluations of the velocity, per run, after which the flow is given up.
        record: Statistics to keep beside the weights, as in `train`.
        progress: Called with (t, t_end) after every solver step.

    Returns:
        The states at exactly the given times; `meta["jacobian_products"]` counts products with the Jacobian, or
        "jacobians" the Jacobians of a method that stores them. Where DOP853 began again, `meta["method"]` is DOP853 and
        "stiff_from" the time from which CVODE went on; rest before that is not noticed. Where DOP853 takes too long,
        CVODE goes on instead; if something still grows unseen at the end, or did for long, there is a warning, and
        "unseen_from" is the time from which it may have been stepped over.

    Raises:
        ValueError: For unusable times, shapes or settings, and losses without a population limit in closed form.
        FlowFailed: When the solver cannot go on, and when `max_evaluations` are used up.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        docs/explanation/beyond-the-paper.md, section 5a.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 1, aug_strength=2.0)  # beyond the threshold of 1
        >>> path = population_flow((0.1 * torch.eye(2),), task, 50.0)
        >>> bool(path.singular_values[-1, 1] < 1e-6)
        True
    """
    objective, task = objective or Objective(), task.to(torch.float64)
    _check_limit(objective)
    objective.check_views(task.views)
    check_weights(weights)
    if weights[0].shape[-1] != task.dim:
        raise ValueError(
            f"the first layer has shape {tuple(weights[0].shape)}; it must read the task's {task.dim} inputs"
        )
    check_weight_decay(weight_decay)
    weights, others = _in_double(objective, weights, predictor, target)
    switches = method is None and _is_watched(objective)
    method = stiff_method() if method is None else method
    solver = Solver(method, rtol, atol, max_evaluations, switches)
    runs = weights[0].shape[:-2] if method in IMPLICIT else ()  # which are integrated one by one
    if isinstance(objective, SelfDistillation):
        together = tuple(w[(0,) * len(runs)] for w in weights)
        equation = moment_equation(together, OnlineMoments.of_task(task), objective, weight_decay)
    else:
        equation = _population_equation(weights, task, objective, weight_decay, method)
    meta = {"dynamics": "population", "weight_decay": weight_decay}

    def runs_at(index: tuple[int, ...], progress: Progress | None) -> Trajectory:
        start, beside = tuple(w[index] for w in weights), [p[index] for p in others]
        return integrate(start, beside, equation, time, solver=solver, meta=meta, progress=progress)

    return recorded(lambda: run_by_run(runs_at, runs, progress), record, weights)


def _population_equation(
    weights: Weights, task: Task, objective: Objective, weight_decay: float, method: str
) -> Equation:
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

    if objective.population is not None:  # whose derivatives nobody gave
        return Equation(velocity, loss, own_loss=objective.name)
    if method != "CVODE":
        return Equation(velocity, loss, jacobian, steady=True)
    kernel = PopulationField([tuple(w.shape[-2:]) for w in weights], task, objective, weight_decay)
    field = Field(kernel.velocity, kernel.linearise, kernel.preconditioned)
    return Equation(velocity, loss, field=field, steady=True)


def _is_watched(objective: Objective | SelfDistillation) -> bool:
    """Whether two methods may take turns: by the eigenvalues of a Jacobian that is symmetric, as a gradient's is."""
    return isinstance(objective, Objective) and cvode_is_installed()


def _check_limit(objective: Objective | SelfDistillation) -> None:
    if not isinstance(objective, SelfDistillation):
        check_population_limit(objective)
    elif objective.activation != "linear":
        raise ValueError(f"the population flow is for linear layers, not for {objective.activation}; use sample_flow")
