"""Beyond the paper: weight decay kills two layers with hysteresis, and one layer at a threshold without noise in it."""

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.lines import Line2D

from dyncollapse import GaussianTask, ModeForces, Trajectory, mode_forces, population_flow, population_valid, train
from dyncollapse.plotting import LEVEL, PALETTE

DATA_VAR, NOISE, END, BATCH = 0.5, 0.25, 1000.0, 64
MARK = {"linestyle": "none", "color": LEVEL}
LARGE, SMALL = 1.5, 0.25  # starts of the product of two layers
NOISES, BATCH_ONE = (0.125, 0.5, 2.0), 256  # panel (b)
# A mode whose p is below DEAD has died. SGD is compared with the closed form but for MARGIN around a threshold.
DEAD, MARGIN, FLOW, SGD = 0.03, 0.08, 1e-4, 0.06


@record
class Options:
    """Parameters of the comparison."""

    step: Number = number(
        0.1, "Distance of weight decays in (a), over the critical one; twice it in (b).", low=0.02, high=0.5
    )
    points: Whole = number(6, "Number of noises in panel (c) at which flows are run.", low=2, high=40)
    coarse: Whole = number(1, "Factor by which SGD's steps are larger and fewer.", low=1, high=4)
    runs: Whole = like("runs", 6, low=2)
    seed: Whole = like("seed", 0)


@drawn_with(Options, step=0.25, points=2, coarse=2, runs=2)
def draw(options: Options) -> Result:
    """Draw p* against weight decay: two layers from two starts, one layer at three noises, and where each depth dies."""
    runs, step = options.runs, options.step
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.6, 3.7), width_ratios=(1.2, 1, 1))
    rows: list[dict[str, object]] = []
    forces = mode_forces(two_sided((NOISE,)))
    critical = float(forces.critical_weight_decay(depth=2)[0])
    turn = draw_branches(left, forces, critical)
    shares = [(k + 0.5) * step for k in range(round(1.3 / step))]
    worst = draw_starts(left, forces, critical, shares, options, rows)
    finish_hysteresis(left, critical, turn)
    errors = draw_one_layer(middle, [k * 2 * step for k in range(round(0.6 / step) + 1)], options, rows)
    draw_critical(right, options.points, rows)
    looks = [
        {"color": LEVEL, "label": "(a) stable"},
        {"color": LEVEL, "linestyle": "--", "label": "(a) unstable"},
        {"color": LEVEL, "linestyle": ":", "linewidth": 1, "label": "(a), (b) threshold"},
        {**MARK, "marker": "o", "mfc": "none", "label": "(a), (b) hollow: flow"},
        {**MARK, "marker": "o", "label": "(a), (b) filled: SGD"},
        {**MARK, "marker": "^", "label": "(c) lives at 0.98"},
        {**MARK, "marker": "v", "label": "(c) dies at 1.02"},
        {"color": PALETTE[1], "alpha": 0.1, "linewidth": 6, "label": "(a) falls to 0"},
    ]
    figure.legend(handles=[Line2D([], [], **look) for look in looks], loc="outside lower center", ncols=4)
    return Result(
        figure,
        rows,
        f"""Rest values of the singular value p of a mode under InfoNCE (Eq. 2), two-sided views, data variance s = {DATA_VAR}, weight decay w on
every layer. (a) Two balanced layers, noise variance a = {NOISE}. Lines: p x(p) = w, x the force of the population, stable (solid), unstable
(dashed). Symbols: starts at p = {LARGE} and {SMALL}; population flow at t = {END:g} (hollow), SGD (filled) on fresh batches of {BATCH}, mean of
{runs} runs of seed {options.seed}. Up to w_c = {critical:.4f} (w_c = {critical / (2 * DATA_VAR):.3f} x 2s, p = {turn:.3f}) a large start lives and one below the dashed branch dies;
from w_c on all die. Zero is stable at every w > 0: [[a mode that SGD has killed stays dead when the flow goes on with a lower w,
step by step down to {step / 2 * critical:.3f} (crosses).]] [[Beside the dashed branch SGD's noise decides, so that some runs live and others die.]]
(b) One layer, noise variances a = {", ".join(map(str, NOISES))}. Each mode rests where A_e + w I takes the place of A_e and dies at w = 2 s whatever the noise,
which alone kills none. SGD on batches of {BATCH_ONE}. (c) The weight decay from which on zero is the only rest point, for one to three
layers, against the noise; triangles: the flow from above lives at 0.98 and dies at 1.02 times that weight decay.
Flows are within {max(worst[0], errors[0]):.1e} of the lines, SGD within {max(worst[1], errors[1]):.3f}.""",
        f"""flows within {FLOW:g} and SGD within {SGD} of the closed form, live and dead modes alike, further than {MARGIN} from a threshold
(in a: also a start from the dashed branch); the crosses below {FLOW:g}; batches large enough for the population limit; in (c) lives and deaths as stated.""",
    )


def two_sided(noises: tuple[float, ...]) -> GaussianTask:
    """One mode of data variance s for each noise variance."""
    noise = torch.tensor(noises, dtype=torch.float64)
    return GaussianTask(DATA_VAR * torch.eye(len(noise)).double(), torch.diag(noise), "two-sided")


def sizes(path: Trajectory) -> torch.Tensor:
    """Singular value p of every mode at the end; the modes are the coordinates."""
    return path.product[-1].norm(dim=-2)


def lift(forces: ModeForces, p: torch.Tensor) -> torch.Tensor:
    """Weight decay p x(p) at which two layers rest at p."""
    return p * forces.at((p.square() * forces.view_var)[:, None])[:, 0]


def draw_branches(ax: plt.Axes, forces: ModeForces, critical: float) -> float:
    """Draw both branches of p x(p) = w, and zero; return p where they meet."""
    p = torch.linspace(0, 2, 2001, dtype=torch.float64)
    decay = lift(forces, p)
    peak = int(decay.argmax())
    ax.plot(decay[:peak], p[:peak], "--", color=LEVEL, linewidth=1.2)
    stable = decay[peak:] >= 0
    ax.plot(decay[peak:][stable], p[peak:][stable], color=LEVEL)
    ax.plot([0, 1], [0, 0], color=LEVEL, zorder=1)
    ax.fill_betweenx(p[: peak + 1], decay[: peak + 1], 1, color=PALETTE[1], alpha=0.1, linewidth=0)
    ax.fill_betweenx(p[peak:], decay[peak:].clamp_min(critical), 1, color=PALETTE[1], alpha=0.1, linewidth=0)
    return float(p[peak])


def draw_starts(
    ax: plt.Axes,
    forces: ModeForces,
    critical: float,
    shares: list[float],
    options: Options,
    rows: list[dict[str, object]],
) -> tuple[float, float]:
    """Draw the ends of flow and SGD from both starts; return their largest distances from the closed form."""
    task, worst, runs, speed = two_sided((NOISE,)), (0.0, 0.0), options.runs, options.coarse
    starts = torch.tensor([LARGE, SMALL], dtype=torch.float64)
    weights = tuple(starts.sqrt().view(2, 1, 1, 1).expand(2, runs, 1, 1).clone() for _ in range(2))
    lower = lift(forces, starts[1:])[0]  # weight decay at which the unstable branch passes the small start
    for share in shares:
        decay = share * critical
        rest = float((forces.rest_variance(decay, depth=2) / forces.view_var).sqrt()[0])
        predicted = torch.tensor([rest, rest if decay < lower else 0.0]).double()
        flow = sizes(population_flow(tuple(w[:, 0] for w in weights), task, END, weight_decay=decay))[:, 0]
        stream = task.stream(BATCH, torch.Generator().manual_seed(options.seed), (2, runs))
        path = train(weights, stream, lr=0.1 * speed, steps=800 // speed, weight_decay=decay, records=2)
        claim(
            bool(population_valid(path.product[-1], task, BATCH).all()), f"{BATCH} pairs are enough at w = {decay:.3f}"
        )
        sgd = sizes(path)[..., 0].mean(1)
        error = sizes(path)[..., 0].std(1) / runs**0.5
        for k, (color, marker) in enumerate(((PALETTE[0], "v"), (PALETTE[1], "^"))):
            ax.plot(decay, flow[k], marker, color=color, markersize=7, markerfacecolor="none", markeredgewidth=0.8)
            ax.errorbar(decay, sgd[k], error[k], color=color, marker=marker, markersize=3, linestyle="none")
            rows.append(row("two layers", 2, NOISE, decay, float(starts[k]), predicted[k], flow[k], sgd[k], error[k]))
            near = abs(share - 1) < MARGIN or (k == 1 and abs(decay / float(lower) - 1) < MARGIN)
            worst = worst if near else compare(worst, rows[-1])
    draw_return(ax, path.weights, [share * critical for share in shares[::-1]], rows)
    return worst


def draw_return(
    ax: plt.Axes, weights: tuple[torch.Tensor, ...], decays: list[float], rows: list[dict[str, object]]
) -> None:
    """Lower the weight decay again from where SGD has died, and draw that the mode stays dead."""
    layers = tuple(w[-1, 0, 0] for w in weights)
    for decay in decays:
        path = population_flow(layers, two_sided((NOISE,)), END, weight_decay=decay)
        layers, p = tuple(w[-1] for w in path.weights), float(sizes(path)[0])
        claim(p < FLOW, f"a dead mode stays dead when w is lowered to {decay:.3f}, where p is {p:.3g}")
        ax.plot(decay, p, "x", color=PALETTE[6], markersize=4, markeredgewidth=1)
        rows.append(row("two layers, w lowered", 2, NOISE, decay, 0.0, 0.0, p, None, None))


def draw_one_layer(
    ax: plt.Axes, decays: list[float], options: Options, rows: list[dict[str, object]]
) -> tuple[float, float]:
    """Draw one layer at several noises against w / 2s; return the largest distances from the closed form."""
    task, worst, runs, speed = two_sided(NOISES), (0.0, 0.0), options.runs, options.coarse
    forces, start = mode_forces(task), torch.eye(len(NOISES)).double()
    order = task.aug_cov.diagonal().tolist()
    colors = (PALETTE[0], PALETTE[2], PALETTE[3])
    fine = torch.linspace(0, 1.2, 241, dtype=torch.float64)
    rests = torch.stack([forces.rest_variance(float(w) * 2 * DATA_VAR) / forces.view_var for w in fine]).sqrt()
    places = [int((forces.view_var - DATA_VAR - a).abs().argmin()) for a in order]
    for place, color, noise in zip(places, colors, NOISES, strict=True):
        ax.plot(fine, rests[:, place], color=color, label=f"a = {noise / DATA_VAR:g} s", zorder=1)
    for share in decays:
        decay = share * 2 * DATA_VAR
        rest = (forces.rest_variance(decay) / forces.view_var).sqrt()
        flow = sizes(population_flow((start,), task, END, weight_decay=decay))
        stream = task.stream(BATCH_ONE, torch.Generator().manual_seed(options.seed), (runs,))
        path = train(
            (start.expand(runs, -1, -1),), stream, lr=0.1 * speed, steps=600 // speed, weight_decay=decay, records=2
        )
        valid = population_valid(path.product[-1], task, BATCH_ONE)
        claim(bool(valid.all()), f"{BATCH_ONE} pairs are enough at w = {decay:.3f}")
        sgd, error = sizes(path).mean(0), sizes(path).std(0) / runs**0.5
        for k, (place, color) in enumerate(zip(places, colors, strict=True)):
            ax.plot(share, flow[k], "o", color=color, markersize=6.5, markerfacecolor="none", markeredgewidth=0.8)
            ax.errorbar(share, sgd[k], error[k], color=color, marker="o", markersize=3, linestyle="none")
            rows.append(row("one layer", 1, NOISES[k], decay, 1.0, rest[place], flow[k], sgd[k], error[k]))
            worst = compare(worst, rows[-1]) if abs(share - 1) > MARGIN else worst
    ax.axvline(1, ymax=0.68, color=LEVEL, linestyle=":", linewidth=1)
    ax.text(1.02, 0.55, "$w = 2s$", fontsize=8, color=LEVEL)
    ax.set(xlabel="weight decay $w / 2s$", ylabel="$p^*$", ylim=(-0.05, None), title="(b) one layer, any noise")
    ax.legend(loc="upper right", handlelength=1, borderaxespad=0)
    return worst


def draw_critical(ax: plt.Axes, points: int, rows: list[dict[str, object]]) -> None:
    """Draw the critical weight decay of each depth against the noise, and flows on both sides of it."""
    fine, marked = (torch.logspace(-2, 2, count, dtype=torch.float64) * DATA_VAR for count in (81, points))
    for depth in (1, 2, 3):
        lines = [float(mode_forces(two_sided((float(a),))).critical_weight_decay(depth)[0]) for a in fine]
        unit, color = 2 * DATA_VAR, PALETTE[depth - 1]
        ax.plot(fine / DATA_VAR, torch.tensor(lines) / unit, color=color, label=f"{depth}")
        for a in marked.tolist():
            task = two_sided((a,))
            forces = mode_forces(task)
            critical, rest = float(forces.critical_weight_decay(depth)[0]), float(forces.rest_variance()[0])
            start = ((rest / float(forces.view_var[0])) ** 0.5) ** (1 / depth)
            for side, marker in ((0.98, "^"), (1.02, "v")):
                decay = side * critical
                weights = tuple(torch.full((1, 1), start, dtype=torch.float64) for _ in range(depth))
                end = float(sizes(population_flow(weights, task, 2000 / decay, weight_decay=decay))[0])
                expected = float((forces.rest_variance(decay, depth) / forces.view_var).sqrt()[0])
                alive = end > expected / 2 if expected else end > 0.1 * start**depth
                claim(
                    alive == (side < 1),
                    f"depth {depth}, a = {a:.3g}: p = {end:.3g} at {side} of the critical weight decay",
                )
                ax.plot(a / DATA_VAR, decay / unit, marker, color=color, markersize=3.5, markeredgewidth=0)
                rows.append(row("critical", depth, a, decay, start**depth, expected, end, None, None))
    ax.set(xscale="log", yscale="log", xlabel="noise $a / s$", ylabel="$w_c / 2s$", title="(c) where all starts die")
    ax.legend(loc="lower left", title="layers", handlelength=1)


def finish_hysteresis(ax: plt.Axes, critical: float, turn: float) -> None:
    """Label the axes, the turning point and what happens there."""
    ax.axvline(critical, ymax=0.68, color=LEVEL, linestyle=":", linewidth=1)
    grey = {"color": LEVEL, "fontsize": 8}
    for end, start in (((1.05, 0.12), (1.05, turn)), ((0.48, 0.07), (0.92, 0.07))):
        ends = [(x * critical, y) for x, y in (end, start)]
        ax.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": LEVEL, "shrinkA": 0, "shrinkB": 0})
    ax.text(critical * 1.09, turn * 0.6, "collapse", rotation=90, va="center", **grey)
    ax.text(critical * 1.03, 1.08, "$w_c$")
    handles = [
        Line2D([], [], color=PALETTE[0], marker="v", linestyle="none", label=f"from p = {LARGE}"),
        Line2D([], [], color=PALETTE[1], marker="^", linestyle="none", label=f"from p = {SMALL}"),
        Line2D([], [], color=PALETTE[6], marker="x", linestyle="none", markersize=4, label="$w$ lowered again"),
    ]
    ax.legend(handles=handles, loc="upper right", handletextpad=0.1, borderaxespad=0.2, labelspacing=0.3)
    ax.set(xlabel="weight decay $w$", ylabel="$p^*$", title="(a) two layers: hysteresis", xlim=(0, 1.4 * critical))
    ax.set_ylim(-0.05, 1.8)


def row(panel: str, depth: int, noise: float, decay: float, start: float, *values: object) -> dict[str, object]:
    """One row of the table; values: predicted, flow, SGD and its standard error."""
    found = {
        key: None if v is None else float(str(float(v)))
        for key, v in zip(("predicted", "flow", "sgd", "standard_error"), values, strict=True)
    }
    return {"panel": panel, "depth": depth, "noise": noise, "weight_decay": decay, "start": start, **found}


def compare(worst: tuple[float, float], found: dict[str, object]) -> tuple[float, float]:
    """Claim that flow and SGD rest where the closed form says; return the largest distances so far."""
    rest, flow, sgd = (float(str(found[key])) for key in ("predicted", "flow", "sgd"))
    name = f"{found['panel']}, a = {found['noise']}, w = {found['weight_decay']:.3f}, start {found['start']}"
    claim(abs(flow - rest) < FLOW, f"{name}: the flow ends at {flow:.6g}, the closed form is {rest:.6g}")
    claim(abs(sgd - rest) < SGD, f"{name}: SGD ends at {sgd:.4g}, the closed form is {rest:.4g}")
    return max(worst[0], abs(flow - rest)), max(worst[1], abs(sgd - rest))


if __name__ == "__main__":
    draw.main()
