"""Beyond the paper: linear BYOL and SimSiam keep a dimension up to a weight decay of s (1 - rho) / 4."""

import numpy as np
import torch
from figure import Result, claim, main, plt

from dyncollapse import GaussianTask, SelfDistillation, byol_rest, population_flow, train

SIGNAL, TIME, BATCH, RATE, SEED = 1.0, 60.0, 64, 0.2, 0
ALIVE = 0.3  # share of the rest value at the threshold, below which an end point counts as dead


def draw(quick: bool) -> Result:
    """Draw which modes live at the end of the flow over augmentation and weight decay, with the predicted threshold."""
    rho = np.linspace(0.05, 0.9, 4 if quick else 12)
    shares = [0.5, 0.95, 1.05, 1.4] if quick else [0.15, 0.3, 0.45, 0.6, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6]
    figure, ax = plt.subplots(figsize=(3.8, 3.0))
    rows: list[dict[str, object]] = []
    errors = []
    for name, objective in (("simsiam", SelfDistillation()), ("byol", SelfDistillation(target_rate=1.0))):
        for share in shares if name == "simsiam" else (0.95, 1.05):
            for one, (end, rest) in zip(rho, flow_ends(rho, share, objective), strict=True):
                rows.append(_row(name, "flow", one, share, end, rest))
                errors.append(abs(end - rest) / (rest or 1.0))
    for share in (0.7, 1.3):
        for one, (end, rest) in zip(rho, sgd_ends(rho, share), strict=True):
            rows.append(_row("simsiam", "sgd", one, share, end, rest))
    wrong = [row for row in rows if row["alive"] != (row["decay_over_critical"] < 1)]
    claim(not wrong, f"{len(wrong)} of {len(rows)} end points lie on the wrong side of s (1 - rho) / 4")
    claim(max(errors) < 0.02, f"the flow rests within 2 % of the formula, measured {max(errors):.2g}")
    _plot(ax, rows)
    sgd = [row for row in rows if row["dynamics"] == "sgd" and row["alive"]]
    gap = max(abs(float(row["value"]) / float(row["rest"]) - 1) for row in sgd)
    return Result(
        figure,
        rows,
        f"""End points of one mode of linear SimSiam and BYOL (target rate 1), one layer and a linear predictor, over augmentation ratio
rho and weight decay: data variance {SIGNAL:g}, two-sided views, balanced start 1.2 times above the rest value at the threshold;
population flow to t = {TIME:g} over the critical decay (BYOL: next to the threshold only), and SGD of SimSiam (batches of {BATCH},
learning rate {RATE:g}, seed {SEED}) to a quarter of that, at 0.7 and 1.3 times the critical decay. Line: the critical decay
s (1 - rho) / 4. A mode counts as alive above {ALIVE:g} times the rest value at the threshold. Asserted: all {len(rows)} end points
lie on their side of the line, as near as 0.95 and 1.05 times it, and the flow ends within 2 % of the rest value (measured
{max(errors):.1e}). SGD's living end points lie within {gap:.0%} of it.""",
    )


def flow_ends(rho: np.ndarray, share: float, objective: SelfDistillation) -> list[tuple[float, float]]:
    """Value of P at the end of the population flow and at rest, per rho, at a share of the critical decay."""
    ends = []
    for one in rho:
        task, critical, start = _mode(one)
        decay = share * critical
        path = population_flow(
            (start,), task, TIME / critical, objective=objective, predictor=start, weight_decay=decay, rtol=1e-7
        )
        ends.append((abs(float(path.product[-1])), float(byol_rest(task, decay).encoder)))
    return ends


def sgd_ends(rho: np.ndarray, share: float) -> list[tuple[float, float]]:
    """The same for SGD of SimSiam."""
    ends = []
    for one in rho:
        task, critical, start = _mode(one)
        stream = task.stream(BATCH, torch.Generator().manual_seed(SEED))
        path = train(
            (start,),
            stream,
            lr=RATE,
            steps=round(TIME / 4 / critical / RATE),
            objective=SelfDistillation(),
            predictor=start,
            weight_decay=share * critical,
            records=2,
        )
        ends.append((abs(float(path.product[-1])), float(byol_rest(task, share * critical).encoder)))
    return ends


def _mode(rho: float) -> tuple[GaussianTask, float, torch.Tensor]:
    """Task of one mode, its critical decay, and a start above the rest value there."""
    task = GaussianTask.block(1, 1, SIGNAL * rho / (1 - rho), SIGNAL, "two-sided")
    critical = float(byol_rest(task).critical_decay)
    return task, critical, torch.full((1, 1), 1.2 * SIGNAL / (2 * (SIGNAL + float(task.aug_cov)))).double()


def _row(method: str, dynamics: str, rho: float, share: float, value: float, rest: float) -> dict[str, object]:
    least = ALIVE * (1 - rho) / 2
    return {
        "method": method,
        "dynamics": dynamics,
        "rho": float(rho),
        "decay": share * SIGNAL * (1 - float(rho)) / 4,
        "decay_over_critical": share,
        "value": value,
        "rest": rest,
        "alive": value > least,
    }


def _plot(ax: plt.Axes, rows: list[dict[str, object]]) -> None:
    across = np.linspace(0, 1, 50)
    ax.plot(across, SIGNAL * (1 - across) / 4, color="black", label=r"$s\,(1 - \rho) / 4$")
    kinds = (
        ("flow", True, {"marker": "o", "color": "C0"}, "flow: alive"),
        ("flow", False, {"marker": "x", "color": "C3"}, "flow: dead"),
        ("sgd", True, {"marker": "s", "facecolor": "none", "edgecolor": "C0"}, "SGD: alive"),
        ("sgd", False, {"marker": "s", "facecolor": "none", "edgecolor": "C3"}, "SGD: dead"),
    )
    for dynamics, alive, style, label in kinds:
        chosen = [row for row in rows if (row["dynamics"], row["alive"]) == (dynamics, alive)]
        ax.scatter([row["rho"] for row in chosen], [row["decay"] for row in chosen], s=14, label=label, **style)
    ax.set(xlabel=r"augmentation ratio $\rho$", ylabel="weight decay", xlim=(0, 1), ylim=(0, None))
    ax.legend()


if __name__ == "__main__":
    main("beyond_byol", draw)
