"""Flows under a given force: constant, as in Theorem 1, or on the layers' singular values, as in Theorem 3."""

import operator
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics.equation import Equation
from dyncollapse.dynamics.solver import MOST_EVALUATIONS, Solver, Time, check_times, integrate
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.conversion import as_tensor
from dyncollapse.model.networks import Weights, end_to_end, layer_gradients


def frozen_flow(
    weights: Weights,
    force: Float[Tensor, "*runs d d"],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
    max_evaluations: int = MOST_EVALUATIONS,
) -> Trajectory:
    """Integrate the flow under a constant force X, any depth; its loss is the potential -tr(P X P^T) / 2 (Theorem 1).

    Args:
        weights: One tensor (*runs, out, in) per layer.
        force: X, symmetric.
        time: Flow time, a scalar or an increasing vector.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: CVODE or one of SciPy's solve_ivp; "expm" takes one layer's closed form W(0) e^(X t) instead.
        max_evaluations: Evaluations of the velocity after which the flow is given up.

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

    solver = Solver(method, rtol, atol, max_evaluations)
    equation = Equation(velocity, loss, steady=True)
    return integrate(weights, (), equation, time, solver=solver, meta={"dynamics": "frozen"})


def mode_flow(
    layer_values: Sequence[Float[Tensor, "*runs k"]],
    force: Float[Tensor, " k"] | Callable[[float], Float[Tensor, " k"]],
    time: Time,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "DOP853",
    max_evaluations: int = MOST_EVALUATIONS,
) -> Trajectory:
    """Integrate the flow of the layers' singular values (Theorem 3), which is exact for aligned layers.

    ds_l/dt = x_k p_k^2 / s_l with p_k = prod_l s_l, so s1' = s1 s2^2 x for two layers.

    Args:
        layer_values: Singular values at t = 0, one tensor (*runs, k) per layer.
        force: x_k = v_k^T X v_k (k,), constant or a function of flow time.
        time: Flow time, a scalar or an increasing vector.
        rtol: Relative tolerance.
        atol: Absolute tolerance, as in `sample_flow`.
        method: CVODE or one of SciPy's solve_ivp.
        max_evaluations: Evaluations of the velocity after which the flow is given up.

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
        push = at(t) * reduce(operator.mul, s)  # which, unlike `math.prod`, does not begin with a product with 1
        if len(s) == 1:
            return [torch.diag_embed(push)]
        others = [reduce(operator.mul, s[:i] + s[i + 1 :]) for i in range(len(s))]
        return [torch.diag_embed(push * other) for other in others]

    def loss(t: float, layers: Weights) -> Tensor:
        p = end_to_end(layers).diagonal(dim1=-2, dim2=-1)
        return -(at(t) * p.square()).sum(-1) / 2

    weights = tuple(torch.diag_embed(s) for s in layer_values)
    solver = Solver(method, rtol, atol, max_evaluations)
    return integrate(weights, (), Equation(velocity, loss), time, solver=solver, meta={"dynamics": "mode"})


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
    return Trajectory(times, (path,), loss(0.0, (path,)), (), {"dynamics": "frozen", "method": "expm"})
