"""Beyond the paper: depth makes modes wait, for a time in closed form; strong augmentation kills at any depth."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

import torch
from figure import Interval, Number, Result, Several, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from dyncollapse import (
    GaussianTask,
    SettingError,
    Trajectory,
    escape_time,
    growth_rates,
    mode_dimensions,
    order_of_convergence,
    population_flow,
    population_valid,
    rest_singular_values,
    train,
)
from dyncollapse.plotting import FAINT, LEVEL, PALETTE, plot_paths, ramp

RTOL = 1e-6
# Tolerances: factors in time, and a relative one for exponents. One layer saturates while it escapes, and SGD's
# growth rate is noisy.
FLOW_FACTOR, SGD_FACTOR, EXPONENT = 1.25, 1.6, 0.05
FLOOR = 3e-3  # of panels (a) to (c)
RHO, SMALLEST, LARGEST = 0.5, 1e-4, 1e-2  # panel (d): rho of its mode, smallest and largest start


@record
class Options:
    """Parameters of the escapes."""

    rho: Several[Annotated[Number, Interval(ge=0.01, le=10)]] = number(
        (0.2, 0.4, 0.6, 0.8, 1.2, 2.0), "Ratios of augmentation to data, one for each mode, separated by commas."
    )
    data_var: Number = like("data_var", 0.5)
    start: Number = number(0.02, "Singular value of all modes at the start.", low=1e-4, high=0.2)
    time: Number = number(400.0, "Flow time t = lr x steps at the end.", low=10, high=1e5)
    lr: Number = like("lr", 0.05)
    batch_size: Whole = like("batch_size", 128)
    points: Whole = number(9, "Number of starts in panel (d).", low=2, high=40)
    seed: Whole = like("seed", 0)

    def __post_init__(self) -> None:
        """Refuse modes of which none lives."""
        if min(self.rho, default=1) >= 1:
            raise SettingError("`rho` needs a value below 1: a mode that escapes")

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratios in ascending order."""
        return tuple(sorted(set(self.rho)))


@drawn_with(Options, lr=0.1, batch_size=64, points=2)
def draw(options: Options) -> Result:
    """Draw the modes of three depths over log time, with their predicted escapes, and escape time against start."""
    lr, batch, points, ratios, start = options.lr, options.batch_size, options.points, options.ratios, options.start
    rho = torch.tensor(ratios, dtype=torch.float64)
    task = GaussianTask(options.data_var * torch.eye(len(rho)).double(), torch.diag(2 * options.data_var * rho))
    figure = plt.figure(figsize=(7.6, 3.3))
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.3))
    rows: list[dict[str, object]] = []
    late, gap = {"flow": [], "SGD": []}, {"flow": 0.0, "SGD": 0.0}
    for depth, ax in enumerate(axes[:3], 1):
        for name, (times, distance) in draw_depth(ax, depth, options, task, rows).items():
            late[name] += times
            gap[name] = max(gap[name], distance)
    for name, factor in (("flow", FLOW_FACTOR), ("SGD", SGD_FACTOR)):
        worst = max(max(ratio, 1 / ratio) for ratio in late[name])
        claim(worst < factor, f"{name}: escapes within a factor {factor} of the closed form, not {worst:.3f}")
        claim(gap[name] < 0.15, f"{name}: survivors end within 15 % of their rest values, not {gap[name]:.3f}")
    add_legends(axes, ratios)
    starts = torch.logspace(math.log10(LARGEST), math.log10(SMALLEST), points, dtype=torch.float64)
    slopes = draw_scaling(axes[3], options, starts, rows)
    spans = {name: f"{min(ratios):.2f} to {max(ratios):.2f}" for name, ratios in late.items()}
    rate = float(growth_rates(scaling_task(options.data_var))[0])
    return Result(
        figure,
        rows,
        f"""(a) to (c) Singular values of the product P of 1, 2 and 3 linear layers, balanced and diagonal, all p(0) = {start:g}, under Eq. 2 with
one-sided views, d = {len(ratios)}, data covariance s I with s = {options.data_var:g}, augmentation variance 2 s rho, rho = {", ".join(f"{r:g}" for r in ratios)}. Lines: population flow
(relative tolerance {RTOL:g}; dashed: rho >= 1). Dots: SGD on fresh batches of {batch}, learning rate {lr:g}, seed {options.seed}, singular values
assigned to modes. Dotted lines and black bars: the closed form of the time at which a mode passes half its rest value p*,
log(p*/2p(0))/x0 for one layer and p(0)^-(2-2/L)/(2(L-1)x0) for L >= 2, x0 = 2s(1-rho): [[deeper networks escape later, from the same start
and under the same force.]] Modes pass p*/2 at {spans["flow"]} (flow) and {spans["SGD"]} (SGD) times that time, and end within
{gap["flow"]:.1e} (flow) and {gap["SGD"]:.2f} (SGD) of p*[[; those with rho >= 1 only fall]]. (d) The time at which the population flow of one
mode, rho = {RHO}, s = {options.data_var:g}, passes p*/2, against its start, for 1 to 5 layers (dots), and the closed form (lines). Exponents by
least squares over {points} starts from {SMALLEST:g} to {LARGEST:g}: {", ".join(f"{slope:.3f}" for slope in slopes[1:])}; one layer waits {slopes[0]:.4f} log(p0)/x0 with x0 = {rate:g}.""",
        f"""exponents, and the slope of one layer in log(p0) against -1/x0, within {EXPONENT:.0%}; in (a) to (c) every mode with rho < 1
passes p*/2 within a factor {FLOW_FACTOR} (flow) and {SGD_FACTOR} (SGD) of its predicted time and ends within 15 % of p*; no mode with rho >= 1
ever exceeds its start, in flow or SGD; {batch} pairs are enough for the population limit at every recorded step.""",
    )


def colours(ratios: Sequence[float]) -> list[str]:
    """A colour for each ratio, grey for those of dead modes."""
    alive = sum(ratio < 1 for ratio in ratios)
    return [*ramp(alive), *[LEVEL, FAINT] * len(ratios)][: len(ratios)]


def draw_depth(
    ax: plt.Axes, depth: int, options: Options, task: GaussianTask, rows: list[dict[str, object]]
) -> dict[str, tuple[list[float], float]]:
    """Draw the modes of so many layers over log time.

    Returns, for flow and SGD, the measured over the predicted escape times, and the largest relative distance from rest.
    """
    ratios, start = options.ratios, options.start
    rest, rates, alive = rest_singular_values(task), growth_rates(task), sum(ratio < 1 for ratio in ratios)
    flow, sgd = trained(options, task, depth)
    # The flow keeps the modes apart. SGD mixes them a little, so that its singular values have to be assigned.
    values = {"flow": flow.product.diagonal(dim1=-2, dim2=-1)}
    values["SGD"] = mode_dimensions(sgd.weights, task).singular_value
    predicted = [escape_time(start, p / 2, x0, depth) for p, x0 in zip(rest.tolist(), rates.tolist(), strict=True)]
    claim(all(map(math.isinf, predicted[alive:])), f"dead modes have no escape time: {predicted[alive:]}")
    paths = {name: (one.time, values[name]) for name, one in (("flow", flow), ("SGD", sgd))}
    draw_modes(ax, paths, (colours(ratios), alive), (predicted, rest))
    ax.set(title=f"({'abc'[depth - 1]}) {depth} layer" + "s" * (depth > 1), xlim=(1, options.time))
    ax.tick_params(labelleft=depth == 1)
    found = {}
    for name, (times, modes) in paths.items():
        grown = float((modes[:, alive:] / start).amax()) if alive < len(ratios) else 0.0
        claim(grown <= 1 + 1e-6, f"depth {depth}, {name}: no dead mode ever grows, one to {grown:.4g} of its start")
        passed = [passing_time(times, modes[:, k], float(rest[k]) / 2) for k in range(alive)]
        for ratio, time, own in zip(ratios, predicted, [*passed, *[math.inf] * len(ratios)], strict=False):
            rows.append({"panel": "modes", "depth": depth, "rho": ratio, "start": start, "dynamics": name})
            rows[-1] |= {"predicted_escape": time, "measured_escape": own}
        late = [own / time for own, time in zip(passed, predicted, strict=False)]
        found[name] = late, float((modes[-1, :alive] / rest[:alive] - 1).abs().max())
    return found


def add_legends(axes: Sequence[plt.Axes], ratios: Sequence[float]) -> None:
    """Explain lines and dots below the figure, and the colours in panel (c)."""
    axes[0].set_ylabel("singular value of $P$")
    flow, dots = Line2D([], [], color=LEVEL), Line2D([], [], color=LEVEL, linestyle="none", marker="o", markersize=2.2)
    escape = Line2D([], [], color=LEVEL, linestyle=":", linewidth=1)
    half = Line2D([], [], color=PALETTE[6], linestyle="none", marker="_", markersize=6, markeredgewidth=1.2)
    words = ["flow", "SGD", "escape time, closed form", "half the rest value"]
    axes[0].figure.legend([flow, dots, escape, half], words, loc="outside lower left", ncols=4)
    looks = zip(colours(ratios), ratios, strict=True)
    handles = [Line2D([], [], color=colour, linestyle="--" if ratio >= 1 else "-") for colour, ratio in looks]
    place = {"loc": "upper left", "handlelength": 1.8, "borderaxespad": 0}
    axes[2].legend(handles, [f"{ratio:g}" for ratio in ratios], title=r"$\rho$", **place)


def trained(options: Options, task: GaussianTask, depth: int) -> tuple[Trajectory, Trajectory]:
    """Population flow and SGD from balanced layers in which all modes start alike."""
    weights, batch = aligned_layers(torch.full((task.dim,), options.start).double(), depth), options.batch_size
    times = torch.logspace(0, math.log10(options.time), 200).double()
    flow = population_flow(weights, task, times, rtol=RTOL)
    stream = task.stream(batch, torch.Generator().manual_seed(options.seed))
    sgd = train(weights, stream, lr=options.lr, steps=round(options.time / options.lr), records=240)
    valid = population_valid(sgd.product, task, batch)
    claim(bool(valid.all()), f"depth {depth}: {batch} pairs are enough for the population limit")
    return flow, sgd


def draw_modes(
    ax: plt.Axes,
    paths: dict[str, tuple[torch.Tensor, torch.Tensor]],
    look: tuple[list[str], int],
    escapes: tuple[list[float], torch.Tensor],
) -> None:
    """Draw the modes of flow and SGD over log time, and the predicted escapes of those that live."""
    (colors, alive), (predicted, rest) = look, escapes
    (time, flow), (times, sgd) = paths["flow"], paths["SGD"]
    plot_paths(ax, time, flow[:, :alive], colors[:alive])
    plot_paths(ax, time, flow[:, alive:], colors[alive:], linestyle="--")
    shown = (times >= 1).nonzero().squeeze(-1)[::4]
    plot_paths(ax, times[shown], sgd[shown], colors, linestyle="none", marker="o", markersize=2.2)
    for k, escape in enumerate(predicted[:alive]):
        half = float(rest[k]) / 2
        ax.plot([escape, escape], [FLOOR, half], ":", color=colors[k], linewidth=1)
        ax.plot(escape, half, "k_", markersize=6, markeredgewidth=1.2)
    ax.set(xscale="log", yscale="log", ylim=(FLOOR, 4))


def scaling_task(data_var: float) -> GaussianTask:
    """The one mode of panel (d)."""
    return GaussianTask.block(1, 1, 2 * data_var * RHO, data_var)


def draw_scaling(ax: plt.Axes, options: Options, starts: torch.Tensor, rows: list[dict[str, object]]) -> list[float]:
    """Draw the escape time of one mode against its start for 1 to 5 layers; return the exponents.

    That of one layer is the slope in log p0 in units of 1 / x0.
    """
    task = scaling_task(options.data_var)
    half, rate, slopes = float(rest_singular_values(task)[0]) / 2, float(growth_rates(task)[0]), []
    fine = torch.logspace(math.log10(float(starts[-1])), math.log10(float(starts[0])), 100).tolist()
    for depth in range(1, 6):
        measured = []
        for start in starts.tolist():
            predicted = escape_time(start, half, rate, depth)
            times = torch.linspace(0.7 * predicted, 1.5 * predicted, 80, dtype=torch.float64)
            path = population_flow(aligned_layers(torch.tensor([start]).double(), depth), task, times, rtol=RTOL)
            measured.append(passing_time(path.time, path.product[:, 0, 0], half))
            rows.append({"panel": "scaling", "depth": depth, "rho": RHO, "start": start, "dynamics": "flow"})
            rows[-1] |= {"predicted_escape": predicted, "measured_escape": measured[-1]}
        if depth == 1:
            slopes.append((measured[-1] - measured[0]) / math.log(float(starts[-1] / starts[0])) * rate)
            theory, label = Fraction(-1), "1: a logarithm"
        else:
            slopes.append(order_of_convergence(starts.tolist(), measured))
            theory = Fraction(2, depth) - 2
            label = f"{depth}: ${slopes[-1]:.3f}$ (${theory}$)"
        error = abs(slopes[-1] / theory - 1)
        claim(error < EXPONENT, f"depth {depth}: slope {slopes[-1]:.3f} within {EXPONENT:.0%} of {theory}")
        ax.plot(fine, [escape_time(start, half, rate, depth) for start in fine], color=PALETTE[depth - 1], linewidth=1)
        ax.plot(starts, measured, "o", color=PALETTE[depth - 1], label=label)
    ax.set(xscale="log", yscale="log", title="(d) escape time", xlabel="start $p_0$", ylabel="flow time $t$")
    ax.set_ylim(5, 1e10)
    ax.set_yticks([10.0**e for e in range(1, 7)])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend(title="layers: slope (theory)", loc="upper right", handletextpad=0, borderaxespad=0, labelspacing=0.3)
    return slopes


def aligned_layers(start: torch.Tensor, depth: int) -> tuple[torch.Tensor, ...]:
    """Balanced diagonal layers whose product has these diagonal entries."""
    return (torch.diag(start ** (1 / depth)),) * depth


def passing_time(time: torch.Tensor, values: torch.Tensor, level: float) -> float:
    """When values first reach a level, interpolated linearly in both logarithms; infinite when they never do."""
    above = (values >= level).nonzero()
    if not len(above):
        return math.inf
    i = int(above[0])
    claim(i > 0, f"the first record, {float(values[0]):.3g}, lies below {level:.3g}")
    (t0, t1), (v0, v1) = time[i - 1 : i + 1].log().tolist(), values[i - 1 : i + 1].log().tolist()
    return math.exp(t0 + (t1 - t0) * (math.log(level) - v0) / (v1 - v0))


if __name__ == "__main__":
    draw.main()
