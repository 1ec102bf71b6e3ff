"""Beyond the paper: from SGD to the population flow, limit by limit: learning rate, batches, samples."""

import itertools
from dataclasses import replace

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record

from dyncollapse import (
    GaussianTask,
    Trajectory,
    balanced_init,
    effective_negatives,
    infonce_weights,
    limit_distances,
    negatives_needed,
    order_of_convergence,
    population_flow,
    sample_flow,
    train,
)
from dyncollapse.plotting import FAINT, PALETTE, plot_order

# The mean over runs is compared at the coarser rates, where its bias, of first order, still exceeds its noise.
RATES, COARSE, COUNTS, AVERAGED = [2.0**-e for e in range(1, 7)], 4, [2, 4, 8, 16, 32], 64
EXAMPLE = 16  # number of fixed batches for which all three distances are stated
COLOURS = {"mean of runs": PALETTE[1]}
BAR = {"color": FAINT, "linestyle": "none", "marker": "|", "markersize": 8, "label": "bars: one standard error"}


@record
class Options:
    """Parameters of the three limits."""

    dim: Whole = number(2, "Input dimension.", low=1, high=8, unit="dimensions")
    batch_size: Whole = like("batch_size", 16, "Pairs in a batch, N, in panels (a) and (b).")
    largest: Whole = number(128, "Largest batch size of panel (c), a power of two.", low=32, high=256, unit="pairs")
    aug_strength: Number = like("aug_strength", 0.1, "Augmentation variance of all inputs; also as --k.")
    start: Number = number(0.2, "Largest singular value of the start.", low=1e-3, high=1)
    time: Number = number(4.0, "Flow time t = lr x steps at which all are compared.", low=1, high=20)
    runs: Whole = number(2048, "Runs of SGD at the coarse rates; a sixteenth of them otherwise.", low=64, high=2**14)
    pairs: Whole = number(
        2**16, "Pairs over which flows are averaged at N = 16; more at larger N.", low=2**12, high=2**20
    )
    seed: Whole = like("seed", 0)

    @property
    def few(self) -> int:
        """Runs where the mean over them is not the question."""
        return self.runs // 16

    @property
    def sizes(self) -> dict[int, int]:
        """Pairs in all for each batch size of panel (c)."""
        sizes = [2**e for e in range(4, 9) if 2**e <= self.largest]
        return {size: self.pairs * max(1, size // 32) for size in sizes}


class Distances:
    """Flows and SGD from one start, each on samples of its own."""

    def __init__(self, options: Options) -> None:
        """Draw the start."""
        self.options = options
        self.task = GaussianTask.block(options.dim, options.dim, options.aug_strength)
        generator = torch.Generator().manual_seed(options.seed)
        (self.start,) = balanced_init([options.dim] * 2, generator, (), options.start)
        self.seeds = itertools.count(options.seed + 1)

    def flow(self, batch: int, batches: int, runs: int) -> Trajectory:
        """Flows on fixed batches, with an error far below every distance here, as RK45 reaches it fastest."""
        drawn = self.task.sample(batch, torch.Generator().manual_seed(next(self.seeds)), (batches, runs))
        start = self.start.expand(runs, *self.start.shape)
        return sample_flow((start,), drawn, self.options.time, rtol=1e-4, method="RK45")

    def sgd(self, rate: float, runs: int) -> Trajectory:
        """SGD on fresh batches."""
        generator = torch.Generator().manual_seed(next(self.seeds))
        stream = self.task.stream(self.options.batch_size, generator, (runs,))
        start = self.start.expand(runs, *self.start.shape)
        return train((start,), stream, lr=rate, steps=round(self.options.time / rate), records=2)


@drawn_with(Options, largest=64, runs=256, pairs=2**14)
def draw(options: Options) -> Result:
    """Draw the distance of SGD and of sample flows to the expected flow, and of that to the population flow."""
    model, few, dim = Distances(options), options.few, options.dim
    task, seeds = model.task, model.seeds
    reference = model.flow(options.batch_size, AVERAGED, few)
    expected = reference.product[-1].mean(0)
    population = population_flow((model.start,), task, options.time).product[-1]
    trained = [model.sgd(rate, options.runs if i <= COARSE else few).product[-1] for i, rate in enumerate(RATES)]
    on_few = [model.flow(options.batch_size, count, few) for count in COUNTS]
    at_size = [model.flow(n, 32, max(2, total // (32 * n))).product[-1] for n, total in options.sizes.items()]

    # Halving the rate halves the bias: twice the step between two such means is the distance to their limit, and
    # twice the root of 1 + 1/2 what their noise makes of it.
    biases = [2 * apart(p.mean(0), q.mean(0)) for p, q in itertools.pairwise(trained[: COARSE + 1])]
    single, batched = (
        [apart(p, expected) for p in products] for products in (trained, [f.product[-1] for f in on_few])
    )
    limits = (
        (0, "learning rate", "one run", RATES, *mean_and_error(single), 0.5, 0.1),
        (0, "learning rate", "mean of runs", RATES[:COARSE], biases, [6**0.5 * noise(p) for p in trained], 1, 0.2),
        (1, "batches", "one flow", COUNTS, *mean_and_error(batched), -0.5, 0.1),
        (2, "samples", "expected flow", list(options.sizes), [apart(p.mean(0), population) for p in at_size], map(noise, at_size), -1, 0.2),
    )  # fmt: skip
    figure, axes = plt.subplots(1, 3, figsize=(7.6, 3.4), sharey=True)
    rows: list[dict[str, object]] = []
    found = [draw_limit(axes[panel], limit, rows) for panel, *limit in limits]
    finish(axes)
    figure.legend(handles=[plt.Line2D([], [], **BAR)], loc="outside lower center")

    for_all = [replace(reference, weights=(p.expand(1, few, dim, dim),)) for p in (expected, population)]
    example = limit_distances(model.sgd(RATES[1], few), on_few[COUNTS.index(EXAMPLE)], *for_all)
    x = task.sample(256, torch.Generator().manual_seed(next(seeds)), (4,))
    alive = float(effective_negatives(infonce_weights(x.anchor @ population.T, x.positive @ population.T)).mean())
    return Result(
        figure,
        rows,
        f"""Distances |P - Q| / |Q| (Frobenius) at flow time t = {options.time:g} of one linear layer under Eq. 2, one-sided views, d = {dim}, data
covariance I/2, augmentation variance {options.aug_strength:g} in all directions, all from one start of singular values from {options.start:g} on down;
seeds {options.seed} to {next(seeds) - 1}. Lines: least squares, and the slope of theory (dashed); bars: one standard error. (a) SGD on fresh batches of N = {options.batch_size} against the
expected flow at that N, mean of the distance over {options.runs} runs ({few} at the smallest rate); and the bias of the mean over
{options.runs} runs, estimated as twice its change when the rate is halved. (b) The flow on M fixed batches of {options.batch_size}, mean of the distance over
{few} draws. (c) The expected flow at N against the population flow. The expected flow is the mean over {few} flows on
{AVERAGED} batches each in (a) and (b), and over flows on 32 batches ({", ".join(f"{total} pairs for N = {size}" for size, total in options.sizes.items())}) in (c).
Slopes: {"; ".join(found)}.
The three distances for learning rate {RATES[1]}, M = {EXAMPLE} and N = {options.batch_size}: learning rate {float(example.learning_rate[-1]):.3f}, batches
{float(example.batches[-1]):.3f}, samples {float(example.samples[-1]):.3f}; the largest comes from the {example.largest}. At the end of the population flow that limit
needs {float(negatives_needed(population, task)):.1f} negatives, and a batch of 256 has effectively {alive:.0f} (1 would mean none).""",
        "the slopes, within the tolerances beside them.",
    )


def draw_limit(ax: plt.Axes, limit: list, rows: list[dict[str, object]]) -> str:
    """Draw distances with their errors, the fitted slope and that of theory; return both in words."""
    change, who, x, distances, errors, theory, tolerance = limit
    y = [float(distance) for distance in distances]
    slope = order_of_convergence(x, y)
    claim(abs(slope - theory) < tolerance, f"{change}, {who}: slope {slope:.3f} within {tolerance} of {theory}")
    color = COLOURS.get(who, PALETTE[0])
    plot_order(ax, x, y, slope, label=f"{who}: slope {slope:.2f}", color=color, reference=theory)
    for at, distance, error in zip(x, y, errors, strict=False):
        ax.vlines(at, max(distance - error, distance / 10), distance + error, color=color, linewidth=1)
        rows.append({"limit": change, "who": who, "value": at, "relative_distance": distance, "standard_error": error})
    return f"{change}, {who}: {slope:.2f} (asserted {theory} ± {tolerance})"


def finish(axes: list[plt.Axes]) -> None:
    """Label all axes."""
    titles = ("(a) SGD to expected flow", "(b) sample to expected flow", "(c) expected to population flow")
    labels = ("learning rate", "number of fixed batches $M$", "batch size $N$")
    for ax, title, label in zip(axes, titles, labels, strict=True):
        ax.set(xlabel=label, title=title, ylim=(5e-3, 0.8))
        ax.legend(loc="upper left" if ax is axes[0] else "upper right")
    axes[0].set_ylabel("relative distance")


def apart(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Distance |p - q| / |q| of products, for every run of p."""
    return torch.linalg.matrix_norm(p - q) / torch.linalg.matrix_norm(q)


def mean_and_error(samples: list[torch.Tensor]) -> tuple[list[float], list[float]]:
    """Mean over runs of each sample, and its standard error."""
    return [float(s.mean()) for s in samples], [float(s.std()) / len(s) ** 0.5 for s in samples]


def noise(products: torch.Tensor) -> float:
    """Relative standard error, in Frobenius norm, of the mean of products over runs."""
    return float(apart(products, products.mean(0)).square().mean().sqrt()) / len(products) ** 0.5


if __name__ == "__main__":
    draw.main()
