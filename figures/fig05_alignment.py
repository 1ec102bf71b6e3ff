"""Fig. 5: the alignment matrix of two layers, where Theorem 2 holds and where it does not."""

import math
from dataclasses import dataclass

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.axes import Axes
from torch import Tensor

from dyncollapse import (
    GaussianTask,
    Objective,
    Trajectory,
    alignment_matrix,
    gaussian_init,
    imbalance,
    population_flow,
    population_force,
    singular_values,
    train,
)
from dyncollapse.plotting import plot_alignment

NAMES = {"distinct": "distinct variances", "isotropic": "isotropic data"}


@record
class Options:
    """Parameters of Fig. 5."""

    dim: Whole = like("dim", 8)
    init_scale: Number = like("init_scale", 0.06, "Standard deviation of the Gaussian start.")
    rho: Number = number(0.3, "Ratio of augmentation to data, rho; beyond 1 all dimensions die.", low=0.01, below=1)
    spread: Number = number(16.0, "Largest data variance over the smallest in the upper panels.", above=1, high=1e4)
    time: Number = number(3e3, "Flow time t = lr x steps at the end of the flows.", low=1, high=1e5)
    batch_size: Whole = like("batch_size", 128)
    lr: Number = like("lr", 0.05)
    steps: Whole = like("steps", 4_000)
    runs: Whole = like("runs", 5, "Independent runs, each with its own start; the second is drawn.")
    seed: Whole = like("seed", 0)


@dataclass(frozen=True)
class Panel:
    """|A| of every run (runs, d, d) at the end of one dynamics on one kind of data, and P's singular values (runs, d)."""

    setting: str
    dynamics: str
    magnitudes: Tensor
    product: Tensor
    time: float

    @property
    def diagonal(self) -> Tensor:
        """Mean of |A| over its diagonal, for each run."""
        return self.magnitudes.diagonal(dim1=-2, dim2=-1).mean(-1)

    @property
    def antidiagonal(self) -> Tensor:
        """Mean of |A| over its other diagonal, for each run."""
        return self.magnitudes.flip(-1).diagonal(dim1=-2, dim2=-1).mean(-1)

    @property
    def waiting(self) -> Tensor:
        """Number of dimensions whose singular value of P is below half of the largest, for each run."""
        return (self.product < self.product[:, :1] / 2).sum(-1)

    @property
    def settled(self) -> Tensor:
        """The runs in which no dimension waits."""
        return self.waiting == 0

    @property
    def spread(self) -> Tensor:
        """Largest singular value of P over the smallest of those that do not wait, less 1, for each run."""
        grown = self.product.masked_fill(self.product < self.product[:, :1] / 2, math.inf)
        return self.product[:, 0] / grown.min(-1).values - 1


@dataclass(frozen=True)
class Conditions:
    """Along a flow the least eigenvalue of X; at its end the least gaps of the layers and of P, and |C|."""

    force: float
    layer_gap: float
    gap: float
    imbalance: float


@drawn_with(Options, dim=6, lr=0.1, steps=2_000)
def draw(options: Options) -> Result:
    """Draw |A| after a long time for data with distinct variances and for isotropic data, from the same start."""
    variances = 0.25 * options.spread ** torch.linspace(1, 0, options.dim, dtype=torch.float64)
    tasks = {
        "distinct": GaussianTask(torch.diag(variances), torch.diag(2 * options.rho * variances)),
        "isotropic": GaussianTask.block(options.dim, options.dim, 2 * options.rho, data_var=1.0),
    }
    generator = torch.Generator().manual_seed(options.seed)
    weights = gaussian_init([options.dim] * 3, generator, (options.runs,), options.init_scale)
    times = torch.logspace(-1, math.log10(options.time), 41, dtype=torch.float64)
    panels, conditions = {}, {}
    for name, task in tasks.items():
        flow = population_flow(weights, task, times)
        stream = task.stream(options.batch_size, generator, (options.runs,))
        sgd = train(weights, stream, lr=options.lr, steps=options.steps)
        conditions[name] = measured(flow, task)
        panels |= {(name, kind): panel(name, kind, path) for kind, path in (("flow", flow), ("SGD", sgd))}
    figure, axes = plt.subplots(2, 2, figsize=(6.2, 6.6))
    shown = min(1, options.runs - 1)
    for letter, ax, one in zip("abcd", axes.flat, panels.values(), strict=True):
        draw_panel(ax, letter, one, shown)
    figure.colorbar(axes[0, 0].images[-1], ax=axes, label="$|A|$, entry by entry", shrink=0.6)
    figure.suptitle(
        f"two linear layers, $d$ = {options.dim}; numbers: mean of $|A|$ over each of its two diagonals\n"
        "(1.00 on the diagonal: layers aligned in the same order; on the other: in opposite order)",
        fontsize=8.5,
    )
    figure.supxlabel(why(panels, shown), fontsize=8)
    check(panels, conditions)
    return Result(figure, rows(panels), caption(options, panels, conditions, variances, shown), asserted())


def panel(setting: str, dynamics: str, path: Trajectory) -> Panel:
    """What a panel shows of the end of a trajectory."""
    magnitudes = alignment_matrix(*path.final()).abs()
    return Panel(setting, dynamics, magnitudes, path.singular_values[-1], float(path.time[-1]))


def measured(flow: Trajectory, task: GaussianTask) -> Conditions:
    """What Theorem 2 assumes of a flow, and what decides."""
    force = population_force(flow.product, task, Objective())
    layers = [singular_values(w[-1]).diff(dim=-1).abs().min() for w in flow.weights]
    c = torch.linalg.matrix_norm(imbalance(*flow.final()), ord=2).max()
    gap = flow.singular_values[-1].diff(dim=-1).abs().min()
    return Conditions(float(torch.linalg.eigvalsh(force).min()), float(min(layers)), float(gap), float(c))


def draw_panel(ax: Axes, letter: str, one: Panel, shown: int) -> None:
    """Draw |A| of one run, with the means over both diagonals."""
    plot_alignment(ax, one.magnitudes[shown])
    ax.set_title(
        f"({letter}) {NAMES[one.setting]}, {one.dynamics} to $t$ = {one.time:g}\n"
        f"on the diagonal {float(one.diagonal[shown]):.2f}, on the other {float(one.antidiagonal[shown]):.2f}"
    )


def why(panels: dict[tuple[str, str], Panel], shown: int) -> str:
    """Why SGD on isotropic data shows this pattern, from the values of the run that is drawn."""
    one, flow = panels["isotropic", "SGD"], panels["isotropic", "flow"]
    noisy, quiet = (100 * float(each.spread[shown]) for each in (one, flow))
    clean = max(float(one.diagonal[shown]), float(one.antidiagonal[shown])) > 0.95
    return (
        f"(d) {'shows a pattern, though' if clean else 'shows neither pattern:'} of {one.product.shape[-1]} dimensions {int(one.waiting[shown])} still "
        f"waits at $t$ = {one.time:g}, and the batches' noise keeps\nthe other singular values of $P$ up to {noisy:.1f} % apart "
        f"({quiet:.1f} % in (c), where only $C$ orders the vectors)"
    )


def check(panels: dict[tuple[str, str], Panel], conditions: dict[str, Conditions]) -> None:
    """Claim what the caption says."""
    for name, one in conditions.items():
        claim(one.force > -1e-3, f"{name}: X, of order 1, never pulls inwards by more than 1e-3: {one.force:.2g}")
        claim(one.layer_gap > 1e-4, f"{name}: each layer's singular values end distinct, not {one.layer_gap:.2g} apart")
    on = {key: float(one.diagonal.mean()) for key, one in panels.items()}
    flow, sgd = panels["isotropic", "flow"], panels["isotropic", "SGD"]
    claim(bool(flow.settled.any()), f"isotropic: in some run all dimensions have escaped by t = {flow.time:g}")
    off = float(flow.antidiagonal[flow.settled].mean()) if flow.settled.any() else math.nan
    claim(on["distinct", "flow"] > 0.97, f"distinct: mean diagonal of |A| is {on['distinct', 'flow']:.3f}")
    claim(on["distinct", "SGD"] > 0.85, f"distinct, SGD: mean diagonal is {on['distinct', 'SGD']:.3f}")
    claim(off > 0.99, f"isotropic, runs in which no dimension waits: anti-diagonal is {off:.3f}")
    claim(on["isotropic", "SGD"] < 0.8, f"isotropic, SGD: mean diagonal is {on['isotropic', 'SGD']:.3f}")
    most = float(sgd.antidiagonal.max())
    claim(most < 0.5, f"isotropic, SGD: the largest anti-diagonal of a run is {most:.3f}")


def rows(panels: dict[tuple[str, str], Panel]) -> list[dict[str, object]]:
    """A row for each entry of every matrix."""
    return [
        {"setting": one.setting, "dynamics": one.dynamics, "run": r, "row": i + 1, "column": j + 1, "abs_A": value}
        for one in panels.values()
        for r, matrix in enumerate(one.magnitudes.tolist())
        for i, line in enumerate(matrix)
        for j, value in enumerate(line)
    ]


def caption(
    options: Options,
    panels: dict[tuple[str, str], Panel],
    conditions: dict[str, Conditions],
    variances: Tensor,
    shown: int,
) -> str:
    """The setting, what the theorem assumes, and the measured means."""
    on = {key: float(one.diagonal.mean()) for key, one in panels.items()}
    off = {key: float(one.antidiagonal.mean()) for key, one in panels.items()}
    distinct, isotropic = conditions["distinct"], conditions["isotropic"]
    return f"""|A| = |V2^T U1| of two linear layers (d = {options.dim}) on Eq. 2, one-sided views, from one and the same Gaussian start
(standard deviation {options.init_scale:g}; run {shown + 1} of {options.runs} of seed {options.seed}). The numbers above a panel: the mean of |A| over its diagonal, which is 1 where the
layers align in the same order, and over its other diagonal, which is 1 where they align in opposite order. (a), (b) Data variances {variances[0]:g} ... {variances[-1]:g}
in geometric steps, augmentation variance {2 * options.rho:g} times each, so that the rest point has distinct singular values: the smallest gap of P
is {distinct.gap:.2g}, the conserved |C| {distinct.imbalance:.2g}. (c), (d) Data covariance I, augmentation {2 * options.rho:g} I, so that the rest point is a multiple of an
orthogonal matrix (smallest gap of P {isotropic.gap:.1e}, |C| {isotropic.imbalance:.2g}). Theorem 2 as printed assumes in both cases that X pulls outwards: along
the flow X, of order 1 at the start, has no eigenvalue below {min(distinct.force, isotropic.force):.1e} on the way. What decides is how the gaps of P
compare with the spread of C's eigenvalues. Flow: infinitely many samples, t = {options.time:g}. SGD: fresh batches of {options.batch_size}, learning rate
{options.lr:g}, {options.steps} steps. {said(panels)}
Means over runs of |A|'s diagonal: distinct {on["distinct", "flow"]:.3f} (flow), {on["distinct", "SGD"]:.3f} (SGD); isotropic {on["isotropic", "flow"]:.6f} (flow), {on["isotropic", "SGD"]:.3f} (SGD). Of its
other diagonal: distinct {off["distinct", "flow"]:.3f}, {off["distinct", "SGD"]:.3f}; isotropic SGD {off["isotropic", "SGD"]:.3f}, isotropic flow: {off["isotropic", "flow"]:.6f}.{unsettled(panels["isotropic", "flow"])}"""


def unsettled(flow: Panel) -> str:
    """How many runs of the flow on isotropic data have no pattern yet, because a dimension waits; nothing if none."""
    count = int((~flow.settled).sum())
    return (
        f"\nIn {count} of {len(flow.settled)} runs of (c) a dimension still waits, and |A| has neither pattern."
        if count
        else ""
    )


def said(panels: dict[tuple[str, str], Panel]) -> str:
    """What moves SGD on isotropic data away from the flow's pattern, as means over runs."""
    one, flow = panels["isotropic", "SGD"], panels["isotropic", "flow"]
    noisy, quiet = (100 * float(each.spread.mean()) for each in (one, flow))
    return (
        f"In (d) {float(one.waiting.double().mean()):.1f} dimensions still wait at t = {one.time:g} (a singular value of P below half the largest), and the noise\n"
        f"of the batches keeps the others up to {noisy:.1f} % apart, which the flow makes equal ({quiet:.1f} %): gaps that come and go compete with C."
    )


def asserted() -> str:
    """What `check` claims."""
    return (
        "with distinct variances a mean diagonal > 0.97 (flow) and > 0.85 (SGD); on isotropic data the flow's other "
        "diagonal > 0.99 over the runs in which no dimension waits, SGD's < 0.5 in every run, and SGD's mean diagonal < 0.8; "
        "no eigenvalue of X below -1e-3 along the flows, and singular values of each layer at least 1e-4 apart at their end."
    )


if __name__ == "__main__":
    draw.main()
