"""Beyond the paper: SGD on a fixed batch converges to the gradient flow at first order in the learning rate."""

import torch
from figure import Result, claim, main, plt

from dyncollapse import GaussianTask, gaussian_init, order_of_convergence, relative_distance, sample_flow, train
from dyncollapse.plotting import plot_order

DIM, BATCH, AUG, TIME, RUNS, SEED = 16, 128, 0.5, 8.0, 4, 0


def draw(quick: bool) -> Result:
    """Draw the distance between SGD and flow on the same fixed batch against the learning rate."""
    rates = [2.0**-e for e in range(5, 8 if quick else 10)]
    figure, ax = plt.subplots(figsize=(3.6, 2.9))
    rows, slopes = [], []
    for depth in (1, 2, 3):
        generator = torch.Generator().manual_seed(SEED)
        weights = gaussian_init([DIM] * (depth + 1), generator, (RUNS,), 0.3)
        pairs = GaussianTask.block(DIM, DIM // 2, AUG).sample(BATCH, generator, (RUNS,))
        flow = sample_flow(weights, pairs, TIME, rtol=1e-10)
        distances = []
        for rate in rates:
            sgd = train(weights, pairs, lr=rate, steps=round(TIME / rate), records=2)
            _, distance = relative_distance(sgd, flow)
            distances.append(float(distance[-1].mean()))
            rows.append({"depth": depth, "learning_rate": rate, "relative_distance": distances[-1]})
        slopes.append(order_of_convergence(rates, distances))
        label = f"{depth} layer{'s' if depth > 1 else ''}: slope {slopes[-1]:.3f}"
        plot_order(ax, rates, distances, slopes[-1], label=label)
        claim(abs(slopes[-1] - 1) < 0.15, f"depth {depth}: slope {slopes[-1]:.3f} within 0.15 of 1")
    ax.set_ylabel("distance to the flow, relative")
    ax.legend()
    return Result(
        figure,
        rows,
        f"""Relative distance |P_sgd - P_flow| / |P_flow| (Frobenius) at flow time t = {TIME:g} between gradient descent on one fixed
batch of {BATCH} and the gradient flow on the same batch (tolerance 1e-10), against the learning rate; mean over {RUNS} runs
of seed {SEED}, d = {DIM}, augmentation variance {AUG} on half the inputs, Gaussian start of standard deviation 0.3.
Slopes for depths 1, 2, 3: {", ".join(f"{slope:.3f}" for slope in slopes)}. Asserted: each within 0.15 of 1.""",
    )


if __name__ == "__main__":
    main("beyond_order", draw)
