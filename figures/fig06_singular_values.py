"""Fig. 6: singular values of both layers and of their product over time, by SGD and by the flow."""

import math
from collections.abc import Callable
from itertools import islice

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, plt, record
from torch import Tensor

from dyncollapse import (
    GaussianTask,
    Trajectory,
    covariance_spectrum,
    forward,
    gaussian_init,
    sample_flow,
    singular_values,
    stack_pairs,
    train,
)
from dyncollapse.plotting import plot_paths, ramp

PROBES = 2_000  # clean samples for the covariance of the embeddings
FIRST = 0.1  # flow time at the left edge
Values = Callable[[Trajectory], Tensor]


@record
class Options:
    """Parameters of Fig. 6."""

    dim: Whole = like("dim", 16)
    aug_strength: Number = like("aug_strength", 0.01, "Augmentation variance of all inputs; also as --k.")
    data_var: Number = like("data_var", 0.5)
    init_scale: Number = like("init_scale", 0.1, "Standard deviation of the Gaussian start.")
    batch_size: Whole = like("batch_size", 128)
    lr: Number = like("lr", 0.02)
    steps: Whole = like("steps", 5_000)
    flow_batches: Whole = like("flow_batches", 64)
    seed: Whole = like("seed", 0)

    @property
    def limit(self) -> float:
        """Largest relative gap between SGD and flow: over seeds up to 0.25 for 16 batches and 0.13 for 64."""
        return 0.15 if self.flow_batches >= 64 else 0.3


@drawn_with(Options, flow_batches=16, steps=1_000)
def draw(options: Options) -> Result:
    """Draw the singular values of W1, W2 and W2 W1, and the embedding covariance, for SGD and for the flow."""
    task = GaussianTask.block(options.dim, options.dim, options.aug_strength, options.data_var)
    generator = torch.Generator().manual_seed(options.seed)
    weights = gaussian_init([options.dim] * 3, generator, scale=options.init_scale)
    stream = task.stream(options.batch_size, generator)
    sgd = train(weights, stream, lr=options.lr, steps=options.steps, records=40)
    last = float(sgd.time[-1])
    times = torch.logspace(min(-1.0, math.log10(last) - 1), math.log10(last), 100, dtype=torch.float64).clamp_max(last)
    flow = sample_flow(weights, stack_pairs(list(islice(stream, options.flow_batches))), times)
    probe = task.sample(PROBES, torch.Generator().manual_seed(options.seed + 1)).anchor
    panels: dict[str, Values] = {
        "(a) $W_1$": lambda path: singular_values(path.weights[0]),
        "(b) $W_2$": lambda path: singular_values(path.weights[1]),
        "(c) $W_2 W_1$": lambda path: path.singular_values,
        "(d) embedding covariance": lambda path: covariance_spectrum(forward((path.product,), probe)),
    }
    figure, rows = plot(panels, sgd, flow, options)
    grown = flow.singular_values[-1] > 1
    gaps = (sgd.singular_values[-1] / flow.singular_values[-1] - 1)[grown].abs()
    beside = "No singular value of the product exceeds 1."
    waiting = int((flow.singular_values[-1] < 1e-2 * flow.singular_values[-1, 0]).sum())
    most, some = min(4, max(1, options.dim // 4)), min(2, options.dim // 8)  # 4 and 2 unless the network is small
    claim(int(grown.sum()) >= most, f"at least {most} modes have grown, not {int(grown.sum())}")
    if len(gaps):
        gap = float(gaps.max())
        beside = f"Where the flow's singular value\nof the product exceeds 1, SGD's is beside it (largest gap {gap:.3f}, relative)."
        within = f"SGD's grown singular values lie within {options.limit:.0%} of the flow's, not {gap:.3g}"
        claim(gap < options.limit, within)
    claim(waiting >= some, f"at least {some} dimensions wait, not {waiting}")
    claim(
        flow.imbalance_drift < 1e-6, f"the flow conserves the layers' imbalance to 1e-6, not {flow.imbalance_drift:.1e}"
    )
    return Result(
        figure,
        rows,
        f"""Singular values of the first layer (a), the second (b) and their product (c), and eigenvalues of the covariance of the embeddings
(d), which the paper draws (Eq. 1; on {PROBES} clean samples); d = {options.dim}, Eq. 2 with one-sided views, data
covariance {options.data_var:g} I, augmentation variance {options.aug_strength:g} in all directions, Gaussian start of standard
deviation {options.init_scale:g}, seed {options.seed}. Dots: SGD on fresh batches of {options.batch_size}, learning rate {options.lr:g}. Lines: gradient flow averaged over
{options.flow_batches} fixed batches of {options.batch_size}, from the same start. At t = {last:g}: {waiting} of {options.dim} dimensions below a hundredth of the largest;
the conserved W1 W1^T - W2^T W2 moved by {flow.imbalance_drift:.1e} (flow) and {sgd.imbalance_drift:.1e} (SGD), relative. {beside}""",
        f"singular values above 1 agree within {options.limit:.0%}, at least {most} have grown beyond 1, at least {some} dimensions "
        "wait, the flow's drift is below 1e-6.",
    )


def plot(
    panels: dict[str, Values], sgd: Trajectory, flow: Trajectory, options: Options
) -> tuple[plt.Figure, list[dict[str, object]]]:
    """Draw a panel for each matrix; return the figure and the table."""
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.0))
    rows: list[dict[str, object]] = []
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        trained, integrated = values(sgd), values(flow)
        seen = (sgd.time > 0).tolist()
        plot_paths(ax, flow.time, integrated, linewidth=1)
        plot_paths(ax, sgd.time[seen], trained[seen], linestyle="none", marker="o", markersize=2.2)
        shown = torch.cat([trained[-len(trained) // 2 :], integrated]).clamp_min(1e-12)
        low, high = float(shown.min()), float(shown.max())
        ax.set(title=title, xscale="log", yscale="log", ylim=(low / 2, high * 2))
        ax.set_xlim(min(FIRST, float(flow.time[-1]) / 10), float(flow.time[-1]) * 1.2)
        for name, path, table in (("sgd", sgd, trained), ("flow", flow, integrated)):
            rows += [
                {"matrix": title[4:].replace("$", ""), "dynamics": name, "time": t, "rank": k + 1, "value": v}
                for t, row in zip(path.time.tolist(), table.tolist(), strict=True)
                for k, v in enumerate(row)
            ]
    axes[0].set_ylabel("singular value")
    axes[3].set_ylabel("eigenvalue")
    dark, light = ramp(options.dim)[0], ramp(options.dim)[-1]
    looks = [
        {"color": dark, "label": f"gradient flow, rank 1 (dark) to {options.dim} (light)"},
        {"color": light, "label": f"rank {options.dim}"},
        {"color": dark, "linestyle": "none", "marker": "o", "markersize": 2.2, "label": "SGD, the same colours"},
    ]
    figure.legend(handles=[plt.Line2D([], [], **look) for look in looks], loc="outside lower center", ncols=3)
    return figure, rows


if __name__ == "__main__":
    draw.main()
