"""Beyond the paper: from SGD to the population flow, limit by limit: learning rate, batches, samples."""

import itertools
from dataclasses import replace

import torch
from figure import Result, claim, main, plt

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
from dyncollapse.plotting import plot_order

DIM, BATCH, AUG, START, TIME, SEED = 2, 16, 0.1, 0.2, 4.0, 0
# The mean over runs is compared at the coarser rates, where its bias, of first order, still exceeds its noise.
RATES, COARSE, COUNTS, AVERAGED = [2.0**-e for e in range(1, 7)], 4, [2, 4, 8, 16, 32], 64


def draw(quick: bool) -> Result:
    """Draw the distance of SGD and of sample flows to the expected flow, and of that to the population flow."""
    pairs = {16: 2**15, 32: 2**15, 64: 2**16} if quick else {16: 2**16, 32: 2**16, 64: 2**17, 128: 2**18}
    few, many = (64, 1024) if quick else (128, 2048)
    task = GaussianTask.block(DIM, DIM, AUG)
    (start,) = balanced_init([DIM, DIM], torch.Generator().manual_seed(SEED), (), START)
    seeds = itertools.count(SEED + 1)

    def flow(batch: int, batches: int, runs: int) -> Trajectory:
        drawn = task.sample(batch, torch.Generator().manual_seed(next(seeds)), (batches, runs))
        # An error far below every distance here, which RK45 reaches with the fewest evaluations.
        return sample_flow((start.expand(runs, DIM, DIM),), drawn, TIME, rtol=1e-4, method="RK45")

    def sgd(rate: float, runs: int) -> Trajectory:
        stream = task.stream(BATCH, torch.Generator().manual_seed(next(seeds)), (runs,))
        return train((start.expand(runs, DIM, DIM),), stream, lr=rate, steps=round(TIME / rate), records=2)

    reference = flow(BATCH, AVERAGED, few)
    expected = reference.product[-1].mean(0)
    population = population_flow((start,), task, TIME).product[-1]
    trained = [sgd(rate, many if i <= COARSE else few).product[-1] for i, rate in enumerate(RATES)]
    on_few = [flow(BATCH, count, few) for count in COUNTS]
    at_size = [flow(size, 32, total // (32 * size)).product[-1] for size, total in pairs.items()]

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
        (2, "samples", "expected flow", list(pairs), [apart(p.mean(0), population) for p in at_size], map(noise, at_size), -1, 0.2),
    )  # fmt: skip
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.0), sharey=True)
    rows, found = [], []
    for panel, change, who, x, distances, errors, theory, tolerance in limits:
        y = [float(distance) for distance in distances]
        slope = order_of_convergence(x, y)
        claim(abs(slope - theory) < tolerance, f"{change}, {who}: slope {slope:.3f} within {tolerance} of {theory}")
        found.append(f"{change}, {who}: {slope:.2f} (asserted {theory} ± {tolerance})")
        color = "C1" if who == "mean of runs" else "C0"
        plot_order(axes[panel], x, y, slope, label=f"{who}: slope {slope:.2f}", color=color)
        for at, distance, error in zip(x, y, errors, strict=False):
            axes[panel].vlines(at, max(distance - error, distance / 10), distance + error, color=color, linewidth=1)
            rows.append(
                {"limit": change, "who": who, "value": at, "relative_distance": distance, "standard_error": error}
            )
    titles = ("(a) SGD to expected flow", "(b) sample to expected flow", "(c) expected to population flow")
    labels = ("learning rate", "number of fixed batches $M$", "batch size $N$")
    for ax, title, label in zip(axes, titles, labels, strict=True):
        ax.set(xlabel=label, title=title, ylim=(5e-3, 0.5))
        ax.legend(loc="upper left" if ax is axes[0] else "upper right")
    axes[0].set_ylabel("relative distance")

    for_all = [replace(reference, weights=(p.expand(1, few, DIM, DIM),)) for p in (expected, population)]
    example = limit_distances(sgd(RATES[1], few), on_few[COUNTS.index(BATCH)], *for_all)
    x = task.sample(256, torch.Generator().manual_seed(next(seeds)), (4,))
    alive = float(effective_negatives(infonce_weights(x.anchor @ population.T, x.positive @ population.T)).mean())
    return Result(
        figure,
        rows,
        f"""Distances |P - Q| / |Q| (Frobenius) at flow time t = {TIME:g} of one linear layer under Eq. 2, one-sided views, d = {DIM}, data
covariance I/2, augmentation variance {AUG} in all directions, all from one start of singular values {START} and {START * 2.718281828**-0.35:.2f};
seeds {SEED} to {next(seeds) - 1}. Lines: least squares; bars: one standard error. (a) SGD on fresh batches of N = {BATCH} against the
expected flow at that N, mean of the distance over {many} runs ({few} at the smallest rate); and the bias of the mean over
{many} runs, estimated as twice its change when the rate is halved. (b) The flow on M fixed batches of {BATCH}, mean of the distance over
{few} draws. (c) The expected flow at N against the population flow. The expected flow is the mean over {few} flows on
{AVERAGED} batches each in (a) and (b), and over flows on 32 batches ({", ".join(f"{total} pairs for N = {size}" for size, total in pairs.items())}) in (c).
Slopes: {"; ".join(found)}.
The three distances for learning rate {RATES[1]}, M = {BATCH} and N = {BATCH}: learning rate {float(example.learning_rate[-1]):.3f}, batches
{float(example.batches[-1]):.3f}, samples {float(example.samples[-1]):.3f}; the largest comes from the {example.largest}. At the end of the population flow that limit
needs {float(negatives_needed(population, task)):.1f} negatives, and a batch of 256 has effectively {alive:.0f} (1 would mean none).
Asserted: the slopes, within the tolerances beside them.""",
    )


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
    main("beyond_limits", draw)
