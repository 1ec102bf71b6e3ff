"""Beyond the paper: a projector takes the collapse on itself, and the representation keeps what the embedding loses."""

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.lines import Line2D

from dyncollapse import (
    GaussianTask,
    ModeForces,
    Trajectory,
    layer_values_at_rest,
    mode_forces,
    population_flow,
    population_valid,
    probe_cost,
    protection_rate,
    train,
)
from dyncollapse.plotting import BAND, LEVEL, PALETTE

RATIOS = (0.15, 0.3, 0.5, 0.7, 1.2, 1.4, 1.7, 2.0)
IMBALANCES, PROJECTOR = (0.8, 0.2), 0.25  # C of the layers, and singular values of the projector, at the start
REST, SAMPLES = 4000.0, 20_000
DEAD, LIVE, SHOWN = 5, 2, 20.0  # the modes of panels (a) and (b), and their time
FLOW, SGD, PRICE, RATE = 1e-5, 0.05, 0.01, 0.02  # tolerances


@record
class Options:
    """Parameters of the two layers."""

    data_var: Number = like("data_var", 0.5)
    batch_size: Whole = like("batch_size", 256)
    lr: Number = like("lr", 0.02)
    time: Number = number(50.0, "Flow time t = lr x steps at the end of SGD.", low=25, high=1e4)
    ridge: Number = number(0.05, "Penalty of the ridge probe per sample.", low=1e-6, high=10)
    runs: Whole = like("runs", 4, low=2)
    seed: Whole = like("seed", 0)


@drawn_with(Options, runs=2, lr=0.04)
def draw(options: Options) -> Result:
    """Draw both layers of a dead and a living mode over time, then rest values and the price of a probe against rho."""
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 5.4))
    rho = torch.tensor(RATIOS, dtype=torch.float64)
    task = GaussianTask(options.data_var * torch.eye(len(rho)).double(), torch.diag(2 * options.data_var * rho))
    rows: list[dict[str, object]] = []
    worst = {"flow": 0.0, "SGD": 0.0, "price": 0.0}
    for place, imbalance in enumerate(IMBALANCES):
        weights = aligned(imbalance)
        flow = population_flow(weights, task, REST)
        stream = task.stream(options.batch_size, torch.Generator().manual_seed(options.seed), (options.runs,))
        start = tuple(w.expand(options.runs, -1, -1) for w in weights)
        sgd = train(start, stream, lr=options.lr, steps=round(options.time / options.lr), records=64)
        valid = population_valid(sgd.product, task, options.batch_size)
        claim(bool(valid.all()), f"C = {imbalance}: {options.batch_size} pairs are enough for the population limit")
        draw_rest(axes[1], options, place, flow, sgd, rows, worst)
        if place == 0:
            rate, predicted = draw_paths(axes[0], task, weights, sgd)
    finish(axes)
    claim(worst["flow"] < FLOW, f"flows rest within {FLOW:g} of the closed form, not {worst['flow']:.2g}")
    claim(worst["SGD"] < SGD, f"SGD rests within {SGD} of the closed form, not {worst['SGD']:.3f}")
    claim(worst["price"] < PRICE, f"probes of SGD cost within {PRICE} of the closed form, not {worst['price']:.3f}")
    claim(abs(rate / predicted - 1) < RATE, f"the dead mode decays at {rate:.4f}, predicted {predicted:.4f}")
    return Result(
        figure,
        rows,
        f"""Two aligned linear layers, encoder W1 and projector W2, under InfoNCE (Eq. 2) with one-sided views: {len(RATIOS)} modes, data variance
s = {options.data_var:g}, augmentation variance 2 s rho. The flow conserves C = s1^2 - s2^2 of each mode. At the start s2 = {PROJECTOR} and s1^2 = s2^2 + C.
(a) A dead mode, rho = {RATIOS[DEAD]}, and (b) a living one, rho = {RATIOS[LIVE]}, at C = {IMBALANCES[0]}: singular values of the encoder, of the projector and of
their product p, by the population flow (lines) and SGD (dots; fresh batches of {options.batch_size}, mean of {options.runs} runs of seed {options.seed}, learning rate {options.lr:g}); dashed: rest values
in closed form, and in (a) the decay exp(-|x0| C t) of p: the flow decays at {rate:.4f}, predicted {predicted:.4f}. [[SGD's noise
keeps p from falling on, and slowly takes from C.]] (c) Rest values against rho, embedding p*
and representation s1 for C = {IMBALANCES[0]} and {IMBALANCES[1]}: closed form (lines), flow at t = {REST:g} (crosses), SGD at t = {options.time:g} (symbols; bars of one standard
error). [[From rho = 1 on the embedding is 0, and the representation rests at sqrt(C).]] (d) What a ridge probe (penalty {options.ridge:g} per sample)
misses of the variance along each mode: closed form (lines), and probes fitted to {SAMPLES} clean samples through SGD's networks (symbols).
At rho = {RATIOS[DEAD]} the probe of the embedding misses {price(rows, IMBALANCES[0], "embedding"):.2f}, that of the representation {price(rows, IMBALANCES[0], "representation"):.3f} (C = {IMBALANCES[0]}) or {price(rows, IMBALANCES[1], "representation"):.3f} (C = {IMBALANCES[1]}).
Flows are within {worst["flow"]:.1e} of the rest values, SGD within {worst["SGD"]:.3f}, prices within {worst["price"]:.3f}.""",
        f"""flows within {FLOW:g}, SGD within {SGD}, prices within {PRICE}, the rate of decay within {RATE:.0%}; batches large enough for the population limit.""",
    )


def aligned(imbalance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Diagonal layers with the same C for every mode."""
    eye = torch.eye(len(RATIOS), dtype=torch.float64)
    return (PROJECTOR**2 + imbalance) ** 0.5 * eye, PROJECTOR * eye


def layer_sizes(weights: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """s1, s2 and p of every mode, as lengths of the columns: the modes are the coordinates."""
    return weights[0].norm(dim=-2), weights[1].norm(dim=-2), (weights[1] @ weights[0]).norm(dim=-2)


def draw_paths(
    axes: list[plt.Axes], task: GaussianTask, weights: tuple[torch.Tensor, torch.Tensor], sgd: Trajectory
) -> tuple[float, float]:
    """Draw a dead and a living mode over time; return the rate at which the dead one decays, measured and predicted."""
    path = population_flow(weights, task, torch.linspace(0, SHOWN, 121, dtype=torch.float64))
    forces, imbalance = mode_forces(task), torch.tensor([IMBALANCES[0]], dtype=torch.float64)
    shown = (sgd.time > 0.8) & (sgd.time <= SHOWN)
    colors, predicted = (PALETTE[0], PALETTE[2], PALETTE[1]), 0.0
    for ax, k in zip(axes, (DEAD, LIVE), strict=True):
        product = (forces.rest_variance() / forces.view_var).sqrt()[k : k + 1]
        rest = (*layer_values_at_rest(product, imbalance), product)
        columns = zip(layer_sizes(path.weights), layer_sizes(sgd.weights), rest, colors, strict=True)
        for values, noisy, end, color in columns:
            ax.plot(path.time, values[:, k], color=color)
            ax.plot(sgd.time[shown], noisy.mean(1)[shown, k], "o", color=color, markersize=3)
            if end > 0:
                ax.axhline(float(end), color=color, linestyle="--", linewidth=0.8)
    x0 = forces.growth[DEAD : DEAD + 1]
    predicted = float(protection_rate(x0, imbalance))
    p = layer_sizes(path.weights)[2][:, DEAD]
    late = path.time >= SHOWN / 2
    rate = -float((p[late][-1] / p[late][0]).log() / (path.time[late][-1] - path.time[late][0]))
    line = p[late][0] * torch.exp(-predicted * (path.time - path.time[late][0]))
    axes[0].plot(path.time, 0.6 * line, "--", color=PALETTE[1], linewidth=0.8)
    return rate, predicted


def draw_rest(
    axes: list[plt.Axes],
    options: Options,
    place: int,
    flow: Trajectory,
    sgd: Trajectory,
    rows: list[dict[str, object]],
    worst: dict[str, float],
) -> None:
    """Draw rest values and prices of a probe at one C against rho."""
    imbalance, rho = IMBALANCES[place], torch.tensor(RATIOS, dtype=torch.float64)
    fine = torch.linspace(0.05, 2.1, 206, dtype=torch.float64)
    (encoder, _, product), (trained, _, embedded) = (
        layer_sizes(tuple(w[-1] for w in path.weights)) for path in (flow, sgd)
    )
    spaces = [("representation", encoder, trained, sgd.weights[0][-1], (PALETTE[0], PALETTE[5])[place], "os"[place])]
    spaces.append(("embedding", product, embedded, sgd.product[-1], PALETTE[1], "D"))
    for name, at_rest, values, weights, color, marker in spaces:
        smooth, predicted = (closed_form(x, imbalance, options.data_var)[name] for x in (fine, rho))
        mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
        smooth_cost, cost = (
            probe_cost(torch.full_like(x, options.data_var), options.data_var * x.square(), options.ridge)
            for x in (smooth, predicted)
        )
        found = probed(weights, options)
        worst["flow"] = max(worst["flow"], float((at_rest - predicted).abs().max()))
        worst["SGD"] = max(worst["SGD"], float((mean - predicted).abs().max()))
        worst["price"] = max(worst["price"], float((found.mean(0) - cost).abs().max()))
        if name == "representation" or place == 0:  # the embedding rests alike at every C
            style = {"color": color, "marker": marker, "linestyle": "none", "markersize": 4.5}
            for ax, line, points, bars in (
                (axes[0], smooth, mean, error),
                (axes[1], smooth_cost, found.mean(0), found.std(0) / len(found) ** 0.5),
            ):
                ax.plot(fine, line, color=color, zorder=1)
                ax.errorbar(rho, points, bars, markeredgecolor="w", markeredgewidth=0.5, **style)
            axes[0].plot(rho, at_rest, "+", color=PALETTE[6], markersize=4, markeredgewidth=0.6, zorder=5)
        columns = zip(RATIOS, predicted, at_rest, mean, error, cost, found.mean(0), strict=True)
        keys = ("predicted", "flow", "sgd", "standard_error", "predicted_price", "sgd_price")
        for ratio, *numbers in columns:
            rows.append({"imbalance": imbalance, "space": name, "rho": ratio})
            rows[-1] |= {key: float(number) for key, number in zip(keys, numbers, strict=True)}


def closed_form(rho: torch.Tensor, imbalance: float, data_var: float) -> dict[str, torch.Tensor]:
    """Rest values of representation and embedding for modes of these rho."""
    forces: ModeForces = mode_forces(
        GaussianTask(data_var * torch.eye(len(rho)).double(), torch.diag(2 * data_var * rho))
    )
    product = (forces.rest_variance() / forces.view_var).sqrt()
    encoder, _ = layer_values_at_rest(product, torch.full_like(product, imbalance))
    return {"representation": encoder, "embedding": product}


def probed(weights: torch.Tensor, options: Options) -> torch.Tensor:
    """Share of every input's variance that ridge regression from x W^T misses (runs, modes), on clean samples."""
    dim = weights.shape[-1]
    x = GaussianTask.block(dim, 0, data_var=options.data_var)
    x = x.clean((SAMPLES,), torch.Generator().manual_seed(options.seed + 1))
    cov = x.T @ x / SAMPLES
    ridge = options.ridge * torch.eye(weights.shape[-2], dtype=x.dtype)
    probe = torch.linalg.solve(weights @ cov @ weights.mT + ridge, weights @ cov)  # (outputs, inputs as targets)
    missed = x - (x @ weights.mT) @ probe
    return missed.square().mean(-2) / x.square().mean(0)


def price(rows: list[dict[str, object]], imbalance: float, space: str) -> float:
    """Measured price of the dead mode of panel (a)."""
    return next(
        float(str(row["sgd_price"]))
        for row in rows
        if (row["imbalance"], row["space"], row["rho"]) == (imbalance, space, RATIOS[DEAD])
    )


def finish(axes: list[list[plt.Axes]]) -> None:
    """Label all axes."""
    dead, live = axes[0]
    dead.set(yscale="log", ylim=(8e-3, 1.6), title=f"(a) dead mode, $\\rho$ = {RATIOS[DEAD]}", ylabel="singular value")
    live.set(ylim=(0, None), title=f"(b) living mode, $\\rho$ = {RATIOS[LIVE]}")
    for ax in (dead, live):
        ax.set(xlabel="flow time $t$", xlim=(0, SHOWN), xticks=range(0, round(SHOWN) + 1, 5))
    names = (("encoder $s_1$", PALETTE[0]), ("projector $s_2$", PALETTE[2]), ("product $p$", PALETTE[1]))
    live.legend(handles=[Line2D([], [], color=color, label=name) for name, color in names], loc="lower right")
    dead.text(SHOWN * 0.98, 1.0, "$\\sqrt{C}$", ha="right", va="bottom", color=PALETTE[0])
    dead.text(SHOWN * 0.2, 0.014, "$e^{-|x_0| C t}$", color=PALETTE[1], ha="right")
    rest, cost = axes[1]
    for ax in (rest, cost):
        ax.axvspan(1, 2.1, color=BAND, alpha=0.4, zorder=0, linewidth=0)
        ax.set(xlabel=r"augmentation over data, $\rho$", xlim=(0, 2.1))
    rest.set(ylabel="singular value at rest", ylim=(-0.05, 2.2), title="(c) spectra at rest")
    cost.set(ylabel="share of variance missed", yscale="log", ylim=(3e-4, 2), title="(d) price of a ridge probe")
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=name)
        for name, color, marker in (
            (f"representation, C = {IMBALANCES[0]}", PALETTE[0], "o"),
            (f"representation, C = {IMBALANCES[1]}", PALETTE[5], "s"),
            ("embedding", PALETTE[1], "D"),
        )
    ]
    looks = [
        {"color": LEVEL, "label": "lines: closed form or flow"},
        {"color": LEVEL, "marker": "o", "linestyle": "none", "label": "symbols: SGD"},
        {"color": LEVEL, "linestyle": "--", "linewidth": 0.8, "label": "dashed: closed form in (a), (b)"},
        {"color": PALETTE[6], "marker": "+", "linestyle": "none", "label": "(c) flow at rest"},
        {"color": BAND, "alpha": 0.4, "linewidth": 6, "label": "(c), (d) the embedding's mode dies"},
    ]
    rest.figure.legend(handles=[Line2D([], [], **look) for look in looks], loc="outside lower center", ncols=3)
    rest.legend(handles=handles, loc="upper right", borderaxespad=0.1)


if __name__ == "__main__":
    draw.main()
