"""Beyond the paper: SGD on a fixed batch converges to the gradient flow at first order in the learning rate."""

from typing import Annotated

import torch
from figure import Interval, Number, Result, Several, Whole, claim, drawn_with, like, number, plt, record

from dyncollapse import (
    GaussianTask,
    SettingError,
    gaussian_init,
    order_of_convergence,
    relative_distance,
    sample_flow,
    train,
)
from dyncollapse.plotting import plot_order

THEORY, TOLERANCE = 1, 0.15


@record
class Options:
    """Parameters of the comparison."""

    lr: Several[Annotated[Number, Interval(ge=1e-5, le=1)]] = like(
        "lr", tuple(2.0**-e for e in range(5, 10)), "Learning rates, two or more, separated by commas."
    )
    depth: Several[Annotated[Whole, Interval(ge=1, le=8)]] = like(
        "depth", (1, 2, 3), "Numbers of layers, separated by commas."
    )
    dim: Whole = like("dim", 16)
    aug_strength: Number = like("aug_strength", 0.5, "Augmentation variance of half the inputs; also as --k.")
    init_scale: Number = like("init_scale", 0.3, "Standard deviation of the Gaussian start.")
    batch_size: Whole = like("batch_size", 128)
    time: Number = number(8.0, "Flow time t = lr x steps at which both are compared.", low=0.1, high=1e3)
    runs: Whole = like("runs", 4)
    seed: Whole = like("seed", 0)

    def __post_init__(self) -> None:
        """Refuse a single rate, and rates that take no step."""
        if len(set(self.lr)) < 2 or max(self.lr) > self.time:
            raise SettingError("`lr` needs two or more rates for a slope, none of them above `time`")


@drawn_with(Options, lr=tuple(2.0**-e for e in range(5, 8)), runs=1)
def draw(options: Options) -> Result:
    """Draw the distance between SGD and flow on the same fixed batch against the learning rate."""
    rates, depths = sorted(set(options.lr), reverse=True), sorted(set(options.depth))
    figure, ax = plt.subplots(figsize=(3.8, 3.1))
    rows, slopes = [], []
    for depth in depths:
        found = distances(options, depth, rates)
        rows += [
            {"depth": depth, "learning_rate": rate, "relative_distance": distance}
            for rate, distance in zip(rates, found, strict=True)
        ]
        slopes.append(order_of_convergence(rates, found))
        label = f"{depth} layer{'s' * (depth > 1)}: slope {slopes[-1]:.3f}"
        plot_order(ax, rates, found, slopes[-1], label=label, reference=THEORY if depth == depths[-1] else None)
        off = abs(slopes[-1] - THEORY)
        claim(off < TOLERANCE, f"depth {depth}: slope {slopes[-1]:.3f} within {TOLERANCE} of {THEORY}")
    ax.set_ylabel("distance to the flow, relative")
    ax.legend()
    return Result(
        figure,
        rows,
        f"""Relative distance |P_sgd - P_flow| / |P_flow| (Frobenius) at flow time t = {options.time:g} between gradient descent on one fixed
batch of {options.batch_size} and the gradient flow on the same batch (tolerance 1e-10), against the learning rate; mean over {options.runs} runs
of seed {options.seed}, d = {options.dim}, augmentation variance {options.aug_strength:g} on half the inputs, Gaussian start of standard deviation {options.init_scale:g}.
Lines: least squares (their slope in the legend), and the slope {THEORY} that a method of first order has (dashed, through the centre of the last).
Slopes for depths {", ".join(map(str, depths))}: {", ".join(f"{slope:.3f}" for slope in slopes)}.""",
        f"each slope is within {TOLERANCE} of {THEORY}, the order of Euler's method.",
    )


def distances(options: Options, depth: int, rates: list[float]) -> list[float]:
    """Mean over runs of the distance between SGD and flow at the end, for each rate."""
    generator = torch.Generator().manual_seed(options.seed)
    weights = gaussian_init([options.dim] * (depth + 1), generator, (options.runs,), options.init_scale)
    task = GaussianTask.block(options.dim, options.dim // 2, options.aug_strength)
    pairs = task.sample(options.batch_size, generator, (options.runs,))
    flow = sample_flow(weights, pairs, options.time, rtol=1e-10)
    paths = (train(weights, pairs, lr=rate, steps=round(options.time / rate), records=2) for rate in rates)
    return [float(relative_distance(sgd, flow)[1][-1].mean()) for sgd in paths]


if __name__ == "__main__":
    draw.main()
