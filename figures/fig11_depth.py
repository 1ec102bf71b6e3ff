"""Fig. 11 (App. C): deeper networks collapse more dimensions, linear and ReLU."""

import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from figure import Interval, Number, Result, Several, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.axes import Axes
from torch import Tensor

from dyncollapse import COLLAPSED_BELOW, GaussianTask, Objective, covariance_spectrum, forward, train, uniform_init
from dyncollapse.plotting import BAND, LEVEL, PALETTE, plot_spectrum, ramp

PANELS = {"linear": "(a) linear", "relu": "(b) ReLU"}
BELOW = COLLAPSED_BELOW**2  # of the largest eigenvalue: variance, where COLLAPSED_BELOW is of singular values
LOWEST = 1e-10  # of the vertical axes


@record
class Options:
    """Parameters of Fig. 11."""

    depth: Several[Annotated[Whole, Interval(ge=1, le=8)]] = like(
        "depth", (1, 2, 3, 4), "Numbers of layers, separated by commas."
    )
    dim: Whole = like("dim", 16)
    aug_strength: Number = like("aug_strength", 0.01, "Augmentation variance of all inputs; also as --k.")
    data_var: Number = like("data_var", 0.5)
    batch_size: Whole = like("batch_size", 128)
    pool: Whole = like("pool", 10_000)
    lr: Number = like("lr", 0.1)
    steps: Whole = like("steps", 2_000)
    runs: Whole = like("runs", 8)
    probes: Whole = number(4_000, "Fresh samples for the covariance of the embeddings.", low=2, high=10**6)
    seed: Whole = like("seed", 0)

    @property
    def depths(self) -> list[int]:
        """The depths in ascending order, each once."""
        return sorted(set(self.depth))


@dataclass(frozen=True)
class Spectra:
    """Covariance eigenvalues of one network (runs, dims)."""

    values: Tensor

    @property
    def collapsed(self) -> Tensor:
        """Number of eigenvalues below BELOW of the largest, for each run."""
        return (self.values < BELOW * self.values[:, :1]).sum(-1).double()

    @property
    def middle(self) -> Tensor:
        """Geometric mean over runs, by rank."""
        return self.values.clamp_min(1e-300).log().mean(0).exp()

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value over runs, by rank."""
        return self.values.min(0).values, self.values.max(0).values


@drawn_with(Options, runs=2, steps=300, batch_size=64)
def draw(options: Options) -> Result:
    """Draw the embedding covariance spectrum by depth, linear and with ReLU, its range over runs and the threshold."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.3), sharey=True)
    found = {
        activation: {depth: trained(options, activation, depth) for depth in options.depths} for activation in PANELS
    }
    for ax, (activation, title) in zip(axes, PANELS.items(), strict=True):
        draw_panel(ax, found[activation])
        ax.set(title=title, xlabel="rank", ylim=(LOWEST, None), ylabel="")
        counts = [float(one.collapsed.mean()) for one in found[activation].values()]
        more = all(later > earlier for earlier, later in itertools.pairwise(counts))
        claim(more, f"{activation}: each layer adds collapsed dimensions: {counts} for depths {options.depths}")
    axes[0].set_ylabel("embedding covariance eigenvalue")
    looks = [
        {"color": LEVEL, "linestyle": ":", "label": f"collapsed below: {BELOW:g} of the largest, for each depth"},
        {"color": BAND, "linewidth": 6, "label": f"bands: smallest to largest of {options.runs} runs"},
    ]
    figure.legend(handles=[plt.Line2D([], [], **look) for look in looks], loc="outside lower center", ncols=2)
    return Result(
        figure, rows(found), caption(options, found), "the mean count rises with every layer, linear and ReLU."
    )


def trained(options: Options, activation: str, depth: int) -> Spectra:
    """The spectra of networks of one depth after SGD."""
    task = GaussianTask.block(options.dim, options.dim, options.aug_strength, options.data_var)
    generator = torch.Generator().manual_seed(options.seed)
    weights = uniform_init([options.dim] * (depth + 1), generator, (options.runs,))
    stream = task.stream(options.batch_size, generator, (options.runs,), options.pool or None)
    path = train(weights, stream, lr=options.lr, steps=options.steps, objective=Objective(activation=activation))
    probe = task.sample(options.probes, torch.Generator().manual_seed(options.seed + 1)).anchor
    return Spectra(covariance_spectrum(forward(path.final(), probe, activation)))


def draw_panel(ax: Axes, found: dict[int, Spectra]) -> None:
    """Draw the spectra of every depth, with their range over runs and the threshold of each."""
    colors = PALETTE if len(found) <= len(PALETTE) else ramp(len(found))
    for (depth, one), color in zip(found.items(), colors, strict=False):
        spread = one.collapsed.std(correction=0)
        label = f"{depth} layer{'s' * (depth > 1)}: {one.collapsed.mean():.1f} ± {spread:.1f} collapsed"
        plot_spectrum(ax, one.middle, color=color, label=label, marker="o", markersize=2.5)
        low, high = one.ends
        ax.fill_between(range(1, len(low) + 1), low.clamp_min(LOWEST / 10), high, color=color, alpha=0.25, linewidth=0)
        ax.axhline(BELOW * float(one.values[:, 0].mean()), color=color, linestyle=":", linewidth=0.9)
    ax.legend(loc="lower left")


def rows(found: dict[str, dict[int, Spectra]]) -> list[dict[str, object]]:
    """A row for each eigenvalue of each run."""
    return [
        {"activation": activation, "depth": depth, "run": r, "rank": k + 1, "covariance_eigenvalue": float(v)}
        for activation, depths in found.items()
        for depth, one in depths.items()
        for r, values in enumerate(one.values)
        for k, v in enumerate(values)
    ]


def caption(options: Options, found: dict[str, dict[int, Spectra]]) -> str:
    """The setting, what bands and dotted lines are, and the counts."""
    counts = {name: [float(one.collapsed.mean()) for one in depths.values()] for name, depths in found.items()}
    drawn = f"a pool of {options.pool}" if options.pool else "fresh samples"
    rho = options.aug_strength / (2 * options.data_var)
    waits = (
        f"Augmentation is below its threshold (rho = {rho:.3g} < 1), so that the collapsed dimensions in (a) only wait (implicit regularisation)."
        if rho < 1
        else f"Augmentation is at or beyond its threshold (rho = {rho:.3g}), so that all dimensions in (a) die with time."
    )
    return f"""Eigenvalues of the embedding covariance (Eq. 1, on {options.probes} fresh samples) of networks of {", ".join(map(str, options.depths))} layers of width {options.dim}, linear (a)
and with ReLU between layers (b), after SGD on Eq. 2 (one-sided views, data covariance {options.data_var:g} I, augmentation variance {options.aug_strength:g}
in all directions, batches of {options.batch_size} from {drawn}, learning rate {options.lr:g}, {options.steps} steps), from the uniform start of
torch.nn.Linear. Lines: geometric mean over {options.runs} runs of seed {options.seed}; bands: from the smallest to the largest run. Dotted, for
each depth in its colour: the threshold. A dimension counts as collapsed below {BELOW:g} of the largest eigenvalue: {counts["linear"]} (linear), {counts["relu"]} (ReLU)
on average. {waits}"""


if __name__ == "__main__":
    draw.main()
