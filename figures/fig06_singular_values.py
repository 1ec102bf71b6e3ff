"""Fig. 6: singular values of both layers and of their product over time, by SGD and by the flow."""

from itertools import islice

import torch
from figure import Result, claim, main, plt

from dyncollapse import GaussianTask, gaussian_init, sample_flow, singular_values, stack_pairs, train
from dyncollapse.plotting import plot_paths

DIM, BATCH, AUG, LR, SEED = 16, 128, 0.01, 0.02, 0


def draw(quick: bool) -> Result:
    """Draw the singular values of W1, W2 and W2 W1 against flow time for SGD and for the gradient flow."""
    # Modes that still grow differ most, by the noise of the batches in their rates: up to 0.25 and 0.13 over seeds.
    batches, steps, limit = (16, 1_500, 0.3) if quick else (64, 5_000, 0.15)
    task = GaussianTask.block(DIM, DIM, AUG)
    generator = torch.Generator().manual_seed(SEED)
    weights = gaussian_init([DIM] * 3, generator)
    stream = task.stream(BATCH, generator)
    sgd = train(weights, stream, lr=LR, steps=steps, records=40)
    times = torch.logspace(-1, torch.log10(sgd.time[-1]).item(), 100, dtype=torch.float64).clamp_max(sgd.time[-1])
    flow = sample_flow(weights, stack_pairs(list(islice(stream, batches))), times)

    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), sharey=True)
    colors = plt.get_cmap("viridis")(torch.linspace(0, 0.95, DIM).numpy())
    panels = (
        ("(a) $W_1$", lambda path: singular_values(path.weights[0])),
        ("(b) $W_2$", lambda path: singular_values(path.weights[1])),
        ("(c) $W_2 W_1$", lambda path: path.singular_values),
    )
    rows = []
    for ax, (title, values) in zip(axes, panels, strict=True):
        trained, integrated = values(sgd), values(flow)
        plot_paths(ax, flow.time, integrated, colors, label="gradient flow")
        plot_paths(ax, sgd.time, trained, colors, label="SGD", linestyle="none", marker="o", markersize=2.5)
        ax.set(title=title, xscale="log", yscale="log", xlim=(0.1, None), ylim=(1e-3, 20))
        for name, path, table in (("sgd", sgd, trained), ("flow", flow, integrated)):
            rows += [
                {
                    "matrix": title[4:].replace("$", ""),
                    "dynamics": name,
                    "time": float(t),
                    "rank": k + 1,
                    "value": float(v),
                }
                for t, row in zip(path.time, table, strict=True)
                for k, v in enumerate(row)
            ]
    axes[0].set_ylabel("singular value")
    axes[0].legend(loc="lower left")

    grown = flow.singular_values[-1] > 1
    gap = (sgd.singular_values[-1] / flow.singular_values[-1] - 1)[grown].abs()
    waiting = int((flow.singular_values[-1] < 1e-2 * flow.singular_values[-1, 0]).sum())
    claim(int(grown.sum()) >= 4, f"at least 4 modes have grown, not {int(grown.sum())}")
    claim(
        float(gap.max()) < limit,
        f"SGD's grown singular values lie within {100 * limit:.0f} % of the flow's, not {float(gap.max()):.3g}",
    )
    claim(waiting >= 2, f"at least 2 dimensions still wait below a hundredth of the largest, not {waiting}")
    claim(flow.imbalance_drift < 1e-6, f"C is conserved by the flow: drift {flow.imbalance_drift:.2g}")
    return Result(
        figure,
        rows,
        f"""Singular values of the first layer (a), the second (b) and their product (c), d = {DIM}, Eq. 2 with one-sided views, data
covariance I/2, augmentation variance {AUG} in all directions (far below the threshold 1), Gaussian start of standard
deviation 0.1, seed {SEED}. Dots: SGD on fresh batches of {BATCH}, learning rate {LR}. Lines: gradient flow averaged over
{batches} fixed batches of {BATCH}, from the same start. At t = {float(sgd.time[-1]):g}: {waiting} of {DIM} dimensions below a hundredth of the largest;
the conserved W1 W1^T - W2^T W2 moved by {flow.imbalance_drift:.1e} (flow) and {sgd.imbalance_drift:.1e} (SGD), relative.
Asserted: singular values above 1 agree within {100 * limit:.0f} % (largest gap {float(gap.max()):.3f}), at least 2 dimensions wait, the flow's drift < 1e-6.""",
    )


if __name__ == "__main__":
    main("fig06_singular_values", draw)
