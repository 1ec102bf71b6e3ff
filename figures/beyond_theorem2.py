"""Beyond the paper: alignment depends on the spread of the conserved imbalance C, compared with the gaps of P."""

import math

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record

from dyncollapse import (
    GaussianTask,
    Trajectory,
    alignment_bound,
    alignment_matrix,
    alignment_report,
    balanced_init,
    gaussian_init,
    imbalance,
    isotropic_rest_layers,
    population_flow,
    rest_singular_values,
    singular_values,
)
from dyncollapse.plotting import BAND, PALETTE, plot_alignment

RTOL = 1e-10
# Below this gap between a layer's singular values, relative to the largest, their order is the solver's noise.
ORDERED = 1e-6
SAME, OPPOSITE, BOUND = PALETTE[0], PALETTE[4], PALETTE[6]


@record
class Options:
    """Parameters of the three settings."""

    dim: Whole = number(6, "Input dimension, and width of both layers.", low=2, high=32, unit="dimensions")
    rho: Number = number(0.3, "Ratio of augmentation to data, rho.", low=0.01, high=0.95)
    init_scale: Number = like("init_scale", 0.05, "Standard deviation of the small start.")
    large_scale: Number = number(0.3, "Standard deviation of the large start.", low=0.01, high=2)
    time: Number = number(1000.0, "Flow time t at the end of the flows from random starts.", low=50, high=1e5)
    runs: Whole = like("runs", 3)
    seed: Whole = like("seed", 0)


@drawn_with(Options, dim=4, runs=1)
def draw(options: Options) -> Result:
    """Draw |A| at the end, and over time how far it is from the identity and from the anti-diagonal."""
    dim, runs, end, short = options.dim, options.runs, options.time, 30.0
    variances = 0.25 * 16 ** torch.linspace(1, 0, dim, dtype=torch.float64)
    distinct = GaussianTask(torch.diag(variances), torch.diag(2 * options.rho * variances))
    isotropic = GaussianTask.block(dim, dim, 2 * options.rho, data_var=1.0)
    small, large = (
        gaussian_init([dim] * 3, _seeded(options.seed), (runs,), scale)
        for scale in (options.init_scale, options.large_scale)
    )
    lam = float(_imbalance_spectrum(large).abs().max())
    balanced = balanced_init([dim] * 3, _seeded(options.seed), (runs,), options.large_scale, imbalance=lam)
    columns = {
        "aligned": ("(a) distinct variances,\nsmall random start", _flow(small, distinct, end)),
        "anti-aligned": ("(b) isotropic data,\nlarge random start", _flow(large, isotropic, end)),
        "balanced": (
            "(c) isotropic data,\nstart with $C = \\lambda I$",
            _flow(balanced, isotropic, short),
        ),
    }
    figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.6), height_ratios=[1, 0.95])
    rows: list[dict[str, object]] = []
    last, final, worst = {}, {}, {}
    paths = {name: path for name, (_, path) in columns.items()}
    settled = {name: torch.ones(runs, dtype=torch.bool) for name in paths}
    settled["anti-aligned"] = _settled(paths["anti-aligned"], isotropic)
    for (name, (title, path)), picture, ax in zip(columns.items(), *axes, strict=True):
        last[name], each, worst[name] = draw_column(picture, ax, title, path, name, rows)
        final[name] = [float(one[settled[name]].amax()) if settled[name].any() else math.nan for one in each]
    finish(figure, axes)

    patterns = {
        name: [
            alignment_report(*(w[last[name], r] for w in path.weights), gap=ORDERED).pattern
            for r in settled[name].nonzero().flatten().tolist()
        ]
        for name, path in paths.items()
    }
    rest_error = _rest_error(paths["anti-aligned"], isotropic, settled["anti-aligned"])
    sizes = {name: _imbalance_spectrum(tuple(w[0] for w in path.weights)) for name, path in paths.items()}
    norm = {name: float(c.abs().max()) for name, c in sizes.items()}
    gap = float(paths["aligned"].singular_values[-1].diff(dim=-1).abs().min())
    check(patterns, final, worst, rest_error)
    return Result(
        figure,
        rows,
        f"""Two linear layers (d = {dim}) on Eq. 2, one-sided views, population flow (relative tolerance {RTOL:g}), {runs} runs of seed {options.seed}.
Top (a, b, c): |A| = |V2^T U1| of the first run. Bottom (d, e, f): the sine of the largest angle between a left singular vector of W1 and the right one
of W2 with the same rank (blue) or with the opposite rank (orange); dashed, what the conserved C = W1 W1^T - W2^T W2 and the singular
values of P alone allow for the same rank, by Davis-Kahan (not drawn where infinite). Left: data variances {variances[0]:g} ... {variances[-1]:g} in
geometric steps, augmentation {2 * options.rho:g} times each, start of standard deviation {options.init_scale:g}: the gaps of P, at least {gap:.2g} at rest[[, dominate
|C| <= {norm["aligned"]:.2g}, and the layers align]] within sin <= {final["aligned"][0]:.2g} (bound {final["aligned"][2]:.2g}). Middle: data covariance I, augmentation {2 * options.rho:g} I, start
of standard deviation {options.large_scale:g}, |C| <= {norm["anti-aligned"]:.2g}: [[P tends to a multiple of an orthogonal matrix, no gap is left, and the layers align in
opposite order]] (sin <= {final["anti-aligned"][1]:.1e}), with the closed form's singular values (error {rest_error:.1e}). Right: the same data and the same
largest |C|, but C = lambda I with lambda = {lam:.2g}: [[aligned at all times]] (sin <= {worst["balanced"]:.1e} before the grey area, where the order of a
layer's singular values, less than {ORDERED:g} of the largest apart, is the solver's noise). [[What decides is therefore not the size of C but its spread,
compared with the gaps of P.]]{_waiting(settled["anti-aligned"])}""",
        """no angle above its bound at any time; patterns aligned, anti-aligned (where no mode waits), aligned in every run;
left bound < 0.8; middle bound infinite, opposite ranks < 1e-5, closed form < 1e-6; right < 1e-6.""",
    )


def draw_column(
    picture: plt.Axes, ax: plt.Axes, title: str, path: Trajectory, name: str, rows: list[dict[str, object]]
) -> tuple[int, list[torch.Tensor], float]:
    """Draw |A| and the angles over time; return the last time drawn, the sines then by run, and the worst of same ranks."""
    time, (same, opposite, bound, ordered) = path.time, _angles(path)
    # The picture shows the last time at which the order of the singular values is above the solver's noise.
    last = int(ordered.nonzero().max())
    plot_alignment(picture, alignment_matrix(*(w[last, 0] for w in path.weights)))
    picture.set_title(f"{title}\n$t$ = {float(time[last]):.{0 if last == len(time) - 1 else 1}f}")
    _draw_angles(ax, time[: last + 1], same, opposite, bound)
    if last < len(time) - 1:
        words = "a layer's values have become equal"
        ax.axvspan(float(time[last]), float(time[-1]), color=BAND, linewidth=0, label=words)
    ax.set_xlim(float(time[0]), float(time[-1]))
    measured = ordered & bound.isfinite().all(-1)
    claim(bool((same <= bound + 1e-12)[measured].all()), f"{name}: no angle exceeds its bound")
    columns = {"sine_same_rank": same, "sine_opposite_rank": opposite, "bound": bound}
    rows += [
        {"setting": name, "run": r, "flow_time": float(time[i])}
        | {column: float(values[i, r]) for column, values in columns.items()}
        for i in range(last + 1)
        for r in range(same.shape[1])
    ]
    if bound[: last + 1].isinf().all():
        words = "bound infinite:\n$C$ exceeds\n$P$'s gaps"
        ax.text(0.06, 0.45, words, transform=ax.transAxes, va="center", fontsize=8)
    return last, [x[last] for x in (same, opposite, bound)], float(same[: last + 1].max())


def finish(figure: plt.Figure, axes: list[list[plt.Axes]]) -> None:
    """Label the axes, and name all lines below them."""
    for letter, ax in zip("def", axes[1], strict=True):
        ax.set_title(f"({letter}) over time")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    axes[1, 0].set_ylabel("sine of the largest angle")
    axes[1, 0].set_ylim(8e-3, 1.4)  # a close-up of the quantity beside it
    axes[1, 0].set_yticks([0.01, 0.1, 1])
    figure.colorbar(axes[0, 0].images[-1], ax=axes[0], label="$|A|$", shrink=0.9)
    named = {label: one for ax in axes[1] for one, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=2)


def check(
    patterns: dict[str, list[str]], final: dict[str, list[float]], worst: dict[str, float], rest_error: float
) -> None:
    """Claim which layers align, and how well."""
    claim(set(patterns["aligned"]) == {"aligned"}, f"distinct variances: {patterns['aligned']}")
    claim(final["aligned"][2] < 0.8, f"distinct variances: the bound certifies alignment, {final['aligned'][2]:.2g}")
    claim(len(patterns["anti-aligned"]) > 0, "isotropic: all modes have escaped in some run")
    if patterns["anti-aligned"]:
        claim({*patterns["anti-aligned"]} == {"anti-aligned"}, f"isotropic, no mode waits: {patterns['anti-aligned']}")
        claim(final["anti-aligned"][1] < 1e-5, f"isotropic: opposite ranks pair up to {final['anti-aligned'][1]:.1e}")
        claim(final["anti-aligned"][2] == math.inf, "isotropic: nothing is certified")
        claim(rest_error < 1e-6, f"isotropic: the layers' singular values are off the closed form by {rest_error:.1e}")
    claim(set(patterns["balanced"]) == {"aligned"}, f"C = lambda I: {patterns['balanced']}")
    claim(worst["balanced"] < 1e-6, f"C = lambda I: same ranks pair at all times up to {worst['balanced']:.1e}")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _flow(weights: tuple[torch.Tensor, ...], task: GaussianTask, end: float) -> Trajectory:
    return population_flow(weights, task, torch.logspace(-1, math.log10(end), 100, dtype=torch.float64), rtol=RTOL)


def _imbalance_spectrum(weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.linalg.eigvalsh(imbalance(*weights)).flip(-1)


def _angles(path: Trajectory) -> tuple[torch.Tensor, ...]:
    """(t, runs): largest sine for equal and for opposite ranks, its bound, and (t,) whether the ranks mean anything."""
    a, c = alignment_matrix(*path.weights), _imbalance_spectrum(path.weights)
    partner = torch.eye(a.shape[-1], dtype=torch.bool)
    same, opposite = (x.masked_fill(partner, 0).norm(dim=-2).amax(-1) for x in (a, a.flip(-2)))
    values = torch.stack([singular_values(w) for w in path.weights])
    gaps = -values.diff(dim=-1) / values[..., :1]
    return same, opposite, alignment_bound(path.singular_values, c).amax(-1), (gaps > ORDERED).flatten(2).all(-1).all(0)


def _draw_angles(
    ax: plt.Axes, time: torch.Tensor, same: torch.Tensor, opposite: torch.Tensor, bound: torch.Tensor
) -> None:
    for values, color, style, label in (
        (opposite, OPPOSITE, "-", "opposite rank"),
        (same, SAME, "-", "same rank"),
        (bound.masked_fill(bound.isinf(), math.nan), BOUND, "--", "same rank, bound from $C$ and $P$"),
    ):
        lines = ax.loglog(time, values[: len(time)], style, color=color, linewidth=1.1, alpha=0.8)
        lines[0].set_label(label)
    ax.set_ylim(1e-16, 9)
    ax.set_yticks([1e-15, 1e-10, 1e-5, 1])
    ax.set_xlabel("flow time $t$")


def _settled(path: Trajectory, task: GaussianTask) -> torch.Tensor:
    """The runs (runs,) in which no mode waits at the end: each has passed half its rest value."""
    return (path.singular_values[-1] > rest_singular_values(task).sort(descending=True).values / 2).all(-1)


def _waiting(settled: torch.Tensor) -> str:
    """In how many runs a mode still waits, which the numbers and patterns leave out; nothing if in none."""
    count = int((~settled).sum())
    left = f"\nIn {count} of {len(settled)} runs of (b) a mode still waits; these are left out of what is said of their end."
    return left if count else ""


def _rest_error(path: Trajectory, task: GaussianTask, runs: torch.Tensor) -> float:
    """Largest distance, in these runs, of the layers' last singular values from those that C at the start and p* predict."""
    if not runs.any():
        return math.nan
    start = _imbalance_spectrum(tuple(w[0] for w in path.weights))
    s1, s2 = isotropic_rest_layers(start, float(rest_singular_values(task)[0]))
    w1, w2 = path.final()
    return float(torch.maximum((singular_values(w1) - s1).abs(), (singular_values(w2) - s2.flip(-1)).abs())[runs].max())


if __name__ == "__main__":
    draw.main()
