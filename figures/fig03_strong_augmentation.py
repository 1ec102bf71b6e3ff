"""Fig. 3: one layer, augmentation swept through the collapse threshold."""

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Annotated

import torch
from figure import Interval, Number, Result, Several, Whole, claim, drawn_with, like, plt, record
from matplotlib.axes import Axes
from torch import Tensor

from dyncollapse import (
    GaussianTask,
    SettingError,
    Trajectory,
    collapse_threshold,
    gaussian_init,
    mode_dimensions,
    rest_singular_values,
    sample_flow,
    stack_pairs,
    train,
)
from dyncollapse.plotting import FAINT, LEVEL, PALETTE, plot_spectrum, ramp

SHOWN = 5  # spectra in panel (a), at most
LOWEST = 1e-8  # lower end of the axes
FEWER = 4  # the flow is drawn on a fourth of its batches, too
COLLAPSED, ALIVE = 1.5, 0.5  # k in units of the threshold, from and up to which the ratios are asserted


@record
class Options:
    """Parameters of Fig. 3."""

    aug_strength: Several[Annotated[Number, Interval(ge=0, le=100)]] = like(
        "aug_strength",
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0),
        "Augmentation variances k of the last `aug_dim` inputs, separated by commas; also as --k.",
    )
    dim: Whole = like("dim", 16)
    aug_dim: Whole | None = like("aug_dim", None, "Number of augmented inputs; half of `dim` by default.")
    data_var: Number = like("data_var", 0.5)
    batch_size: Whole = like("batch_size", 128)
    pool: Whole = like("pool", 10_000)
    lr: Number = like("lr", 0.1)
    steps: Whole = like("steps", 3_000)
    runs: Whole = like("runs", 5)
    flow_batches: Whole = like("flow_batches", 16)
    seed: Whole = like("seed", 0)

    def __post_init__(self) -> None:
        """Refuse a block without dimensions."""
        if not 0 < self.augmented < self.dim:
            raise SettingError(f"`aug_dim` is {self.augmented}; it must be between 1 and {self.dim - 1}, below `dim`")

    @property
    def augmented(self) -> int:
        """Number of augmented inputs."""
        return self.dim // 2 if self.aug_dim is None else self.aug_dim

    @property
    def strengths(self) -> list[float]:
        """The variances in ascending order, each once."""
        return sorted(set(self.aug_strength))


@dataclass(frozen=True)
class Ends:
    """Singular values at the end of one dynamics (runs, dims), and those of both blocks by input mode."""

    sigma: Tensor
    clean: Tensor
    augmented: Tensor

    @property
    def ratio(self) -> float:
        """Smallest of the unaugmented block over largest of the augmented one, each the mean over runs."""
        return float(self.clean.min(-1).values.mean() / self.largest)

    @property
    def largest(self) -> Tensor:
        """Largest of the augmented block, mean over runs."""
        return self.augmented.max(-1).values.mean()

    @property
    def typical(self) -> Tensor:
        """Geometric mean of the augmented block over its dimensions and the runs."""
        return self.augmented.log().mean().exp()


@drawn_with(Options, aug_strength=(0.0, 0.5, 3.0), runs=1, flow_batches=4, steps=500)
def draw(options: Options) -> Result:
    """Draw the singular values of W for several augmentation strengths k, and the augmented block's against k."""
    found = {k: trained(options, k) for k in options.strengths}
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9))
    draw_spectra(left, found)
    draw_sweep(right, found, options)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    check(found, options)
    rows = [
        {"k": k, "dynamics": name, "rank": i + 1, "mean": float(v.mean()), "spread": float(v.std(correction=0))}
        for k, ends in found.items()
        for name in ("sgd", "flow")
        for i, v in enumerate(ends[name].sigma.T)
    ]
    return Result(figure, rows, caption(found, options), asserted())


def trained(options: Options, k: float) -> dict[str, Ends]:
    """The ends of SGD, of the flow, and of the flow on a fourth of its batches."""
    task = GaussianTask.block(options.dim, options.augmented, k, options.data_var)
    generator = torch.Generator().manual_seed(options.seed)
    weights = gaussian_init([options.dim] * 2, generator, (options.runs,))
    stream = task.stream(options.batch_size, generator, (options.runs,), options.pool or None)
    sgd = train(weights, stream, lr=options.lr, steps=options.steps)
    batches = list(islice(stream, options.flow_batches))
    few = batches[: max(1, len(batches) // FEWER)]
    paths = {"sgd": sgd}
    paths |= {name: sample_flow(weights, stack_pairs(b), sgd.time[1:]) for name, b in (("flow", batches), ("few", few))}
    return {name: ends(path, task, options) for name, path in paths.items()}


def ends(path: Trajectory, task: GaussianTask, options: Options) -> Ends:
    """Singular values at the end, assigned to the input modes."""
    blocks = [options.dim - options.augmented, options.augmented]
    clean, augmented = mode_dimensions(path.final(), task).singular_value.split(blocks, dim=-1)
    return Ends(path.singular_values[-1], clean, augmented)


def draw_spectra(ax: Axes, found: dict[float, dict[str, Ends]]) -> None:
    """Draw the singular values by rank at some of the strengths, first and last among them."""
    strengths = list(found)
    places = torch.linspace(0, len(strengths) - 1, min(SHOWN, len(strengths))).round().int().tolist()
    for place, color in zip(places, ramp(len(places)), strict=True):
        for name, style in (("sgd", {"linestyle": "none", "marker": "o"}), ("flow", {})):
            sigma = found[strengths[place]][name].sigma
            label = f"(a) $k$ = {strengths[place]:g}" if name == "flow" else None
            plot_spectrum(ax, sigma.mean(0), spread=sigma.std(0, correction=0), color=color, label=label, **style)
    ax.set(ylim=(LOWEST, 10), title="(a) spectra: SGD (dots), flow (lines)")


def draw_sweep(ax: Axes, found: dict[float, dict[str, Ends]], options: Options) -> None:
    """Draw the edge of both blocks against the strength, and how far flow and SGD are apart at the last."""
    strengths, last = list(found), found[options.strengths[-1]]
    threshold = collapse_threshold(options.data_var)
    grid = torch.linspace(0.02, max(strengths[-1], 0.1), 300, dtype=torch.float64).tolist()
    rest = [float(rest_singular_values(GaussianTask.block(1, 1, k, options.data_var))[0]) for k in grid]

    def plot(name: str, label: str, look: str, **style: object) -> None:
        values = [
            one[name].clean.min(-1).values.mean() if "smallest" in label else one[name].largest
            for one in found.values()
        ]
        ax.plot(strengths, values, look, label=f"(b) {label}", **style)

    def times(name: str) -> str:
        return f"{factor(last[name].largest / last['sgd'].largest)} x SGD at $k$ = {strengths[-1]:g}"

    plot("sgd", "SGD, smallest of unaugmented block", "^", color=PALETTE[2])
    plot("sgd", "SGD, fresh batches, largest of augmented block", "o", color=PALETTE[0])
    plot("flow", f"flow on {counted(options.flow_batches)}, largest: {times('flow')}", "-", color=PALETTE[1])
    few = max(1, options.flow_batches // FEWER)
    if few < options.flow_batches:
        plot("few", f"flow on {counted(few)}, largest: {times('few')}", "-.", color=PALETTE[1])
    ax.plot(grid, rest, color=FAINT, linestyle="--", label="(b) rest point, infinite batch")
    if threshold <= max(grid):
        ax.axvline(threshold, color=LEVEL, linestyle=":", label=f"(b) threshold $k$ = {threshold:g}")
    ax.set(yscale="log", ylim=(LOWEST, 10), xlabel="augmentation variance $k$", ylabel="singular value of $W$")
    slower = bool(last["few"].largest > last["flow"].largest > last["sgd"].largest)
    ax.set_title("(b) fixed batches hold a direction back" if slower else "(b) the edges of both blocks")


def factor(value: Tensor) -> str:
    """A factor with two digits, and without an exponent up to a million."""
    return f"{float(f'{value:.2g}'):.7g}"


def counted(batches: int) -> str:
    """So many fixed batches, in words."""
    return f"{batches} fixed batch{'es' * (batches > 1)}"


def check(found: dict[float, dict[str, Ends]], options: Options) -> None:
    """Claim that the blocks part beyond the threshold, more and more, and not below it."""
    threshold = collapse_threshold(options.data_var)
    for name, least in (("sgd", 100), ("flow", 8)):
        ratios = [ends[name].ratio for ends in found.values()]
        for k, ratio in zip(found, ratios, strict=True):
            if k >= COLLAPSED * threshold:
                claim(
                    ratio > least,
                    f"{name}, k = {k:g}: augmented block a factor {least} below the rest, not {ratio:.3g}",
                )
            if k <= ALIVE * threshold:
                claim(ratio < 10, f"{name}, k = {k:g}: no collapse below the threshold, but a factor {ratio:.3g}")
        grows = all(later > earlier for earlier, later in pairwise(ratios))
        claim(grows, f"{name}: the gap grows with k: {', '.join(f'{ratio:.3g}' for ratio in ratios)}")
    last = found[options.strengths[-1]]
    few, many = (last[name].largest / last["sgd"].largest for name in ("few", "flow"))
    claim(bool(few > many > 1), f"the flow on fewer batches stays further above SGD: {few:.3g}, {many:.3g}")


def caption(found: dict[float, dict[str, Ends]], options: Options) -> str:
    """The setting, and the measured ratios."""
    first, last = options.dim - options.augmented, found[options.strengths[-1]]
    typical = last["flow"].typical / last["sgd"].typical
    measured = "; ".join(f"k = {k:g}: {e['sgd'].ratio:.3g}, {e['flow'].ratio:.3g}" for k, e in found.items())
    drawn = f"a pool of {options.pool}" if options.pool else "fresh samples"
    return f"""One linear layer trained on Eq. 2 (InfoNCE, one-sided views), d = {options.dim}, data covariance {options.data_var:g} I, the inputs after the
first {first} augmented with variance k. (a) Singular values of W at flow time t = {options.lr * options.steps:g}: SGD (dots; learning rate {options.lr:g},
batches of {options.batch_size} from {drawn}, {options.runs} runs of seed {options.seed}, bars: one standard deviation) and the gradient flow
averaged over {counted(options.flow_batches)} of {options.batch_size} (lines, bands). (b) The same against k, with the threshold k = {collapse_threshold(options.data_var):g} and the rest
point that a single augmented mode has with infinitely many negatives. Singular values are assigned to input modes by the overlap
of their right singular vectors. Smallest of the unaugmented block over largest of the augmented one (SGD, flow): {measured}.
[[Why the flow's largest lies above SGD's: the flow sees the same few batches all the time, and their sampling error slows some
augmented direction down throughout, where fresh batches average over it.]] At k = {options.strengths[-1]:g} the largest is {factor(last["flow"].largest / last["sgd"].largest)} times SGD's on {counted(options.flow_batches)} and
{factor(last["few"].largest / last["sgd"].largest)} times on {max(1, options.flow_batches // FEWER)}; the geometric mean of the block, to which slow and fast directions count alike, is {typical:.2g} times SGD's."""


def asserted() -> str:
    """What `check` claims."""
    return (
        f"the ratio of the blocks is above 100 (SGD) and 8 (flow) from {COLLAPSED} times the threshold on and below 10 up to "
        f"{ALIVE} times it, and grows with k; at the largest k the flow on a fourth of the batches lies further above SGD."
    )


if __name__ == "__main__":
    draw.main()
