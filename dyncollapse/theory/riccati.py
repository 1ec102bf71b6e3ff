"""The exact solution of one layer under the dot-product and spectral losses: a matrix Riccati equation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.pair_moments import Task
from dyncollapse.theory.limits import population_limit


def riccati_gram(
    weight: Float[Tensor, "m d"],
    task: Task,
    time: float,
    loss: str = "dot",
    temperature: float | None = None,
) -> Float[Tensor, "d d"]:
    """P^T P of one layer at flow time t, exactly, for the dot-product and spectral losses when S_e = sigma I.

    Q = P^T P obeys Q' = B Q + Q B - 2 g Q^2, where B = 2 S / tau and g = 2 sigma^2 / tau^2 (dot), B = 4 S and
    g = 4 sigma^2 (spectral). With M = W0 e^(Bt) and E = (1 - e^(-2Bt)) / 2B, Q(t) = M^T (I + 2 g M E M^T)^-1 M.

    Args:
        weight: W0 (m, d), the layer at t = 0. In B's eigenbasis entries below round-off of its norm count as zero.
        task: Covariances and view convention.
        time: Flow time t, however late.
        loss: "dot" or "spectral".
        temperature: tau of the dot loss.

    Returns:
        Q (d, d), float64.

    Raises:
        ValueError: For other losses and covariances, a weight that does not fit, and a time below 0.

    References:
        docs/explanation/beyond-the-paper.md, section 5d.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 0, data_var=0.5)
        >>> riccati_gram(0.1 * torch.eye(2), task, 100.0, "spectral").round(decimals=6).diagonal().tolist()  # s / s_e^2
        [2.0, 2.0]
    """
    if weight.ndim != 2 or weight.shape[1] != task.dim or not torch.isfinite(weight).all():
        raise ValueError(f"the weight has shape {tuple(weight.shape)}; give one finite (m, {task.dim}) matrix")
    if not 0 <= time < math.inf:
        raise ValueError(f"time is {time}; it must be finite and at least 0")
    s_e, _ = task.to(torch.float64).seen
    sigma = float(s_e.diagonal().mean())
    if float((s_e - sigma * torch.eye(task.dim)).abs().max()) > 1e-12 * sigma:
        raise ValueError("the Riccati solution needs S_e = sigma I (two-sided: S + A); use population_flow instead")
    if loss not in ("dot", "spectral"):
        raise ValueError(f"the flow of {loss} is no Riccati equation; choose dot or spectral")
    limit = population_limit(task.to(torch.float64), loss, temperature)
    repel = limit.repulsion
    assert repel is not None
    rates, frame = torch.linalg.eigh(limit.growth)
    rates, frame = rates.clamp_min(0).flip(0), frame.flip(1)
    # Rotations of W0's rows do not change Q. In echelon form row i starts at column leads[i], the fastest mode that it
    # contains. Its growth exp(b_leads t) is divided out, so that nothing overflows or is lost at late times.
    rows, leads = _echelon(weight.to(torch.float64) @ frame)
    rows = rows * torch.exp((rates - rates[leads, None]).clamp_max(0) * time)
    # (1 - e^(-2 b t)) / (2 b), which is t at b = 0.
    span = torch.where(rates > 0, -torch.expm1(-2 * rates * time) / (2 * rates), time)
    spread = rows * torch.sqrt(2 * repel * sigma**2 * span)
    stacked = torch.cat([spread, torch.diag(torch.exp(-rates[leads] * time))], dim=1)
    triangle = torch.linalg.qr(stacked.T, mode="r").R
    half = torch.linalg.solve_triangular(triangle.T, rows, upper=False) @ frame.T
    return half.T @ half


def _echelon(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Rotate rows into echelon form, without those that vanish, and name the column in which each one starts."""
    rows, leads = rows.clone(), list[int]()
    tolerance = 10 * max(rows.shape) * torch.finfo(rows.dtype).eps * float(torch.linalg.matrix_norm(rows))
    for column in range(rows.shape[1]):
        top = len(leads)
        mirror = rows[top:, column].clone()
        if (length := float(torch.linalg.vector_norm(mirror))) > tolerance:
            mirror[0] += math.copysign(length, mirror[0])
            rows[top:] -= torch.outer(mirror, 2 / (mirror @ mirror) * (mirror @ rows[top:]))
            leads.append(column)
        rows[len(leads) :, column] = 0
    return rows[: len(leads)], leads
