"""Beyond the paper: linear BYOL and SimSiam keep a dimension up to a weight decay of s (1 - rho) / 4."""

from typing import Annotated

import numpy as np
import torch
from figure import Interval, Number, Result, Several, Whole, claim, drawn_with, like, number, plt, record

from dyncollapse import GaussianTask, SelfDistillation, byol_rest, population_flow, train
from dyncollapse.plotting import PALETTE

ALIVE = 0.3  # share of the rest value at the threshold, below which an end point counts as dead
NEAR, SGD_AT = (0.95, 1.05), (0.7, 1.3)  # shares of the critical decay at which BYOL and SGD are run


@record
class Options:
    """Parameters of the phase diagram."""

    points: Whole = number(12, "Number of augmentation ratios rho between 0.05 and 0.9.", low=2, high=40)
    shares: Several[Annotated[Number, Interval(gt=0, le=4)]] = number(
        (0.15, 0.3, 0.45, 0.6, 0.8, 0.95, 1.05, 1.2, 1.4, 1.6),
        "Weight decays of SimSiam's flow over the critical one, separated by commas.",
    )
    data_var: Number = like("data_var", 1.0)
    time: Number = number(60.0, "Flow time t at the end, over the critical decay.", low=5, high=1e3)
    batch_size: Whole = like("batch_size", 64)
    lr: Number = like("lr", 0.2)
    seed: Whole = like("seed", 0)


@drawn_with(Options, points=2, shares=(0.5, 0.95, 1.05, 1.4), time=40.0)
def draw(options: Options) -> Result:
    """Draw which modes live at the end of the flow over augmentation and weight decay, with the predicted threshold."""
    rho = np.linspace(0.05, 0.9, options.points)
    figure, ax = plt.subplots(figsize=(4.2, 3.3))
    rows: list[dict[str, object]] = []
    errors = []
    for name, objective in (("simsiam", SelfDistillation()), ("byol", SelfDistillation(target_rate=1.0))):
        for share in sorted(set(options.shares)) if name == "simsiam" else NEAR:
            for one, (end, rest) in zip(rho, flow_ends(options, rho, share, objective), strict=True):
                rows.append(_row(options, name, "flow", one, share, end, rest))
                errors.append(abs(end - rest) / (rest or 1.0))
    for share in SGD_AT:
        for one, (end, rest) in zip(rho, sgd_ends(options, rho, share), strict=True):
            rows.append(_row(options, "simsiam", "sgd", one, share, end, rest))
    wrong = [row for row in rows if row["alive"] != (row["decay_over_critical"] < 1)]
    claim(not wrong, f"{len(wrong)} of {len(rows)} end points lie on the wrong side of s (1 - rho) / 4")
    claim(max(errors) < 0.02, f"the flow rests within 2 % of the formula, measured {max(errors):.2g}")
    _plot(ax, rows, options.data_var)
    sgd = [row for row in rows if row["dynamics"] == "sgd" and row["alive"]]
    gap = max((abs(float(row["value"]) / float(row["rest"]) - 1) for row in sgd if row["rest"]), default=float("nan"))
    return Result(
        figure,
        rows,
        f"""End points of one mode of linear SimSiam and BYOL (target rate 1), one layer and a linear predictor, over augmentation ratio
rho and weight decay: data variance {options.data_var:g}, two-sided views, balanced start 1.2 times above the rest value at the threshold;
population flow to t = {options.time:g} over the critical decay (BYOL: next to the threshold only), and SGD of SimSiam (batches of {options.batch_size},
learning rate {options.lr:g}, seed {options.seed}) to a quarter of that, at {SGD_AT[0]} and {SGD_AT[1]} times the critical decay. Line: the critical decay
s (1 - rho) / 4. A mode counts as alive above {ALIVE:g} times the rest value at the threshold. The flow ends within {max(errors):.1e} of the rest value,
SGD's living end points within {gap:.0%}.""",
        "all end points lie on their side of the line, as near as 0.95 and 1.05 times it, and the flow ends within 2 % of the rest value.",
    )


def flow_ends(
    options: Options, rho: np.ndarray, share: float, objective: SelfDistillation
) -> list[tuple[float, float]]:
    """Value of P at the end of the population flow and at rest, per rho, at a share of the critical decay."""
    ends = []
    for one in rho:
        task, critical, start = _mode(options.data_var, one)
        decay = share * critical
        path = population_flow(
            (start,), task, options.time / critical, objective=objective, predictor=start, weight_decay=decay, rtol=1e-7
        )
        ends.append((abs(float(path.product[-1])), float(byol_rest(task, decay).encoder)))
    return ends


def sgd_ends(options: Options, rho: np.ndarray, share: float) -> list[tuple[float, float]]:
    """The same for SGD of SimSiam."""
    ends = []
    for one in rho:
        task, critical, start = _mode(options.data_var, one)
        stream = task.stream(options.batch_size, torch.Generator().manual_seed(options.seed))
        path = train(
            (start,),
            stream,
            lr=options.lr,
            steps=max(1, round(options.time / 4 / critical / options.lr)),
            objective=SelfDistillation(),
            predictor=start,
            weight_decay=share * critical,
            records=2,
        )
        ends.append((abs(float(path.product[-1])), float(byol_rest(task, share * critical).encoder)))
    return ends


def _mode(signal: float, rho: float) -> tuple[GaussianTask, float, torch.Tensor]:
    """Task of one mode, its critical decay, and a start above the rest value there."""
    task = GaussianTask.block(1, 1, signal * rho / (1 - rho), signal, "two-sided")
    critical = float(byol_rest(task).critical_decay)
    return task, critical, torch.full((1, 1), 1.2 * signal / (2 * (signal + float(task.aug_cov)))).double()


def _row(
    options: Options, method: str, dynamics: str, rho: float, share: float, value: float, rest: float
) -> dict[str, object]:
    least = ALIVE * (1 - rho) / 2
    return {
        "method": method,
        "dynamics": dynamics,
        "rho": float(rho),
        "decay": share * options.data_var * (1 - float(rho)) / 4,
        "decay_over_critical": share,
        "value": value,
        "rest": rest,
        "alive": value > least,
    }


def _plot(ax: plt.Axes, rows: list[dict[str, object]], signal: float) -> None:
    across = np.linspace(0, 1, 50)
    ax.plot(across, signal * (1 - across) / 4, color=PALETTE[6], label=r"$s\,(1 - \rho) / 4$")
    kinds = (
        ("flow", True, {"marker": "o", "color": PALETTE[0]}, "flow: alive"),
        ("flow", False, {"marker": "x", "color": PALETTE[1]}, "flow: dead"),
        ("sgd", True, {"marker": "s", "mfc": "none", "color": PALETTE[0]}, "SGD: alive"),
        ("sgd", False, {"marker": "s", "mfc": "none", "color": PALETTE[1]}, "SGD: dead"),
    )
    for dynamics, alive, style, label in kinds:
        chosen = [row for row in rows if (row["dynamics"], row["alive"]) == (dynamics, alive)]
        places = [row["rho"] for row in chosen], [row["decay"] for row in chosen]
        ax.plot(*places, linestyle="none", label=label, **style)
    ax.set(xlabel=r"augmentation ratio $\rho$", ylabel="weight decay", xlim=(0, 1), ylim=(0, None))
    ax.legend()


if __name__ == "__main__":
    draw.main()
