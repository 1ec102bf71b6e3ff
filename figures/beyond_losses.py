"""Beyond the paper: one axis for all losses, with the ratio rho at which each lets a direction die."""

import math
from dataclasses import dataclass

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record

from dyncollapse import (
    Objective,
    PairMoments,
    Trajectory,
    gaussian_init,
    population_flow,
    population_valid,
    rest_modes,
    train,
)
from dyncollapse.plotting import BAND, LEVEL, PALETTE

END, TAU = 400.0, 0.1
TINY = 1e-2  # start of the flows over that of SGD
# SGD's points lie on the lines within this share of the variance, this variance, and so many standard errors.
SHARE, SMALL, ERRORS, FLOW = 0.03, 0.01, 3, 1e-6
ALIVE, FLOOR = 1e-3, 5e-4  # of panel (c): shares that count as alive, and where smaller ones are drawn


@dataclass(frozen=True)
class Setting:
    """A loss as it is trained and drawn, with rho of its modes."""

    label: str
    objective: Objective
    rho: tuple[float, ...]
    batch: int
    lr: float
    steps: int
    color: str
    marker: str
    threshold: float = math.nan  # rho from which on a mode dies, where it is known

    def pairs(self, coarse: int) -> int:
        """Return the batch size, smaller in quick runs where negatives do not limit it."""
        return max(256, self.batch // coarse)


# Losses on the same line have modes of different rho, so that their points do not cover each other. Dot products rest
# at c = tau (1 - rho); batches of any size stand for the population only while 2 c^2 < tau^2, from rho = 0.29 on.
KNOWN = (
    Setting("InfoNCE", Objective("infonce"), (0.05, 0.3, 0.45, 0.65, 0.85, 1.3), 256, 0.1, 1000, PALETTE[0], "o", 1.0),
    Setting("Barlow Twins", Objective("barlow"), (0.05, 0.2, 0.35, 0.5, 0.58, 1.4), 1024, 0.02, 1200, PALETTE[1], "D", 1.0),
    Setting("VCReg, λ = ½", Objective("vcreg", invariance=0.5), (0.1, 0.5, 0.9, 1.25, 1.6, 1.85), 1024, 0.05, 600, PALETTE[2], "v", 2.0),
    Setting("VCReg, λ = 1", Objective("vcreg"), (0.12, 0.33, 0.57, 0.75, 1.25, 1.7), 1024, 0.05, 600, PALETTE[2], "o", 1.0),
    Setting("VCReg, λ = 2", Objective("vcreg", invariance=2.0), (0.05, 0.15, 0.25, 0.4, 0.65, 1.2), 1024, 0.05, 600, PALETTE[2], "^", 0.5),
    Setting("spectral", Objective("spectral"), (0.05, 0.25, 0.5, 0.7, 0.9, 1.15), 256, 0.05, 1200, PALETTE[4], "s", 1.0),
    Setting("dot products, c/τ", Objective("dot", TAU), (0.4, 0.63, 0.82, 1.1, 1.5, 1.8), 256, 0.01, 1000, PALETTE[3], "p", 1.0),
)  # fmt: skip
MIXED = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.1, 1.3, 1.5)
NEGATIVE = {"color": BAND, "alpha": 0.4, "linewidth": 0}  # where both views are negatively correlated
SHAPES = {"linestyle": "none", "color": LEVEL}
LOOKS = (
    {"color": LEVEL, "label": "closed form, in (b) where a mode lives"},
    {"color": LEVEL, "linestyle": ":", "linewidth": 1, "label": "(b) where it dies"},
    {**SHAPES, "color": PALETTE[6], "marker": "|", "markersize": 9, "label": "(b) threshold"},
    {**SHAPES, "color": PALETTE[6], "marker": "+", "label": "(a) population flow"},
    {**SHAPES, "marker": "o", "label": "SGD, symbols as in (b) and (c)"},
    {**SHAPES, "marker": "o", "mfc": "none", "label": f"(c) hollow: less than {FLOOR:g}"},
    {"color": BAND, "linewidth": 6, "alpha": 0.4, "label": "views negatively correlated"},
)
MEASURED = (
    Setting("NT-Xent, τ = 0.1", Objective("ntxent", 0.1), MIXED, 256, 1.0, 600, PALETTE[0], "o"),
    Setting("NT-Xent, τ = 0.5", Objective("ntxent", 0.5), MIXED, 256, 1.0, 600, PALETTE[5], "^"),
    Setting("VICReg, hinge", Objective("vicreg"), MIXED, 512, 0.5, 1200, PALETTE[2], "s"),
    Setting("Barlow Twins, normalised", Objective("barlow-normalised"), MIXED, 512, 0.2, 1200, PALETTE[1], "D"),
)


@record
class Options:
    """Parameters of the comparison of losses."""

    runs: Whole = like("runs", 8, "Runs of SGD for each loss; half as many in panel (c).", low=2)
    init_scale: Number = like("init_scale", 0.1, "Standard deviation of the Gaussian start of SGD.")
    coarse: Whole = number(
        1, "Factor by which SGD's steps are larger and fewer, and some batches smaller.", low=1, high=4
    )
    seed: Whole = like("seed", 0)

    @property
    def fewer(self) -> int:
        """Runs of panel (c)."""
        return max(2, self.runs // 2)


@drawn_with(Options, runs=4, coarse=2)
def draw(options: Options) -> Result:
    """Draw the embedding variance at rest against rho: exact lines, SGD and flows on them; losses without a line."""
    coarse = options.coarse
    figure = plt.figure(figsize=(7.6, 5.2))
    grid = figure.add_gridspec(2, 2, width_ratios=(1.5, 1), height_ratios=(2.1, 1))
    figure.legend(handles=[plt.Line2D([], [], **look) for look in LOOKS], loc="outside lower center", ncols=3)
    upper, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
    lower = figure.add_subplot(grid[1, 0], sharex=upper)
    rows: list[dict[str, object]] = []
    for setting in KNOWN:
        draw_known(upper, setting, options, rows)
    flow, sgd, low = check_known(rows)
    finish_known(upper)
    draw_thresholds(lower)
    last = [draw_measured(right, setting, options, rows) for setting in MEASURED]
    finish_measured(right)
    claim(last[0] > 1 > last[1], f"NT-Xent keeps modes beyond rho = 1 at τ = 0.1 and not at 0.5: {last[0]}, {last[1]}")
    claim(max(last[2:]) < 0.5, f"VICReg and normalised Barlow Twins give modes up before rho = 0.5: {last[2:]}")
    return Result(
        figure,
        rows,
        f"""(a) Embedding variance c at rest along modes of ratio rho = a_e / (2 s_e), for one linear layer under losses with a closed form:
two-sided Gaussian pairs, views of variance 1, covariance 1 - rho between the views, six modes per loss. Lines: closed form
(InfoNCE 1/u - 1 with u + u^2 = 2 rho; spectral 1 - rho; VCReg 1 - lambda rho; Barlow Twins on covariances 1/(1 - rho); dot products
tau (1 - rho), drawn over tau = {TAU}; all 0 from their threshold on). Crosses: population flow at t = {END:g}, from a start of {TINY:g} times SGD's: beside modes with
rho > 1, where Barlow Twins rests depends on the start, and tends to the closed form as the start goes to 0. Symbols: SGD on fresh batches
of {KNOWN[0].pairs(coarse)} (losses with negatives) or {KNOWN[1].pairs(coarse)} (others), mean over {options.runs} runs of seed {options.seed}, bars of one standard error, Gaussian start of standard
deviation {options.init_scale:g} ({options.init_scale * TAU**0.5:.2f} for dot products) that mixes the modes. InfoNCE grows without bound as rho goes to 0, Barlow Twins as rho goes to 1
(InfoNCE at rho = {KNOWN[0].rho[0]}, c = {rows[0]["sgd"]:.2f}, lies outside).
(b) The range of rho in which a mode lives. Beyond rho = 1 (grey) both views of a pair are negatively correlated, which two
independent draws of one augmentation never are. VCReg's coefficient sets its threshold, 1 / lambda. (c) Losses without a known
closed form, in which each mode depends on all others: share of the variance of the embedding, as the loss normalises it, along
each of {len(MIXED)} modes after SGD, {options.fewer} runs; hollow: less than {FLOOR:g}. The largest rho with a share above {ALIVE:g}: {", ".join(f"{setting.label} {value:g}" for setting, value in zip(MEASURED, last, strict=True))}.
(Barlow Twins' published weight of redundancy, 0.005, is for thousands of outputs; over ten it hardly counts.)
Flows are within {flow:.1e} of the lines; SGD within {sgd:.3f} (at most {low:.3f} where c < 1).""",
        f"""flows within {FLOW:g}; SGD within {SHARE:.0%} of c, {SMALL} and {ERRORS} standard errors together, with dead modes below {SMALL}; batches large
enough for the population limit; NT-Xent keeps modes beyond rho = 1 at tau = 0.1 but not at 0.5, the other two none from 0.5 on.""",
    )


def moments(rho: tuple[float, ...] | list[float]) -> PairMoments:
    """Two-sided pairs with views of variance 1 and covariance 1 - rho between them, negative for rho > 1."""
    gamma = 1 - torch.tensor(rho, dtype=torch.float64)
    return PairMoments.from_covariances(torch.eye(len(rho)).double(), torch.diag(gamma))


def at_rest(rho: tuple[float, ...] | list[float], objective: Objective) -> torch.Tensor:
    """Embedding variance at rest of every mode; the modes are the coordinates."""
    return rest_modes(
        moments(rho), str(objective.loss), objective.temperature, invariance=objective.invariance
    ).gram.diagonal()


def trained(setting: Setting, runs: int, options: Options) -> Trajectory:
    """SGD from a small start whose weights mix the modes; steps are `coarse` times larger and fewer than in full."""
    dim, generator = len(setting.rho), torch.Generator().manual_seed(options.seed)
    coarse, start = options.coarse, options.init_scale * (TAU**0.5 if setting.objective.loss == "dot" else 1)
    weights = gaussian_init([dim, dim], generator, (runs,), start)
    stream = moments(setting.rho).gaussian_task().stream(setting.pairs(coarse), generator, (runs,))
    lr, steps = setting.lr * coarse, setting.steps // coarse
    return train(weights, stream, lr=lr, steps=steps, objective=setting.objective, records=2)


def draw_known(ax: plt.Axes, setting: Setting, options: Options, rows: list[dict[str, object]]) -> None:
    """Draw one loss: its rest variance as a line, the ends of SGD and of the population flow as points."""
    runs, coarse, objective = options.runs, options.coarse, setting.objective
    path = trained(setting, runs, options)
    unit = TAU if objective.loss == "dot" else 1.0
    if objective.loss not in ("spectral", "dot"):  # which lie on the line of VCReg with lambda = 1
        fine = [k / 100 for k in range(1, 201) if k / 100 < setting.threshold or objective.loss != "barlow"]
        ax.plot(fine, at_rest(fine, objective), color=setting.color, zorder=1)
    valid = population_valid(path.product[-1], moments(setting.rho), setting.pairs(coarse), objective)
    claim(bool(valid.all()), f"{setting.label}: {setting.pairs(coarse)} pairs are enough for the population limit")
    found = path.product[-1].square().sum(-2) / unit
    mean, error = found.mean(0), found.std(0) / runs**0.5
    end = population_flow((TINY * path.weights[0][0, 0],), moments(setting.rho), END, objective=objective)
    flow = end.product[-1].square().sum(-2) / unit
    style = {"color": setting.color, "marker": setting.marker, "markeredgecolor": "w", "markeredgewidth": 0.5}
    ax.errorbar(setting.rho, mean, error, linestyle="none", markersize=5, label=setting.label, clip_on=True, **style)
    ax.plot(setting.rho, flow, "+", color=PALETTE[6], markersize=4, markeredgewidth=0.6, zorder=5)
    rest = at_rest(setting.rho, objective) / unit
    columns = (setting.rho, rest.tolist(), mean.tolist(), error.tolist(), flow.tolist())
    for rho, predicted, sgd, spread, at_end in zip(*columns, strict=True):
        rows.append({"panel": "known", "loss": setting.label, "rho": rho, "predicted": predicted})
        rows[-1] |= {"sgd": sgd, "standard_error": spread, "flow": at_end}


def check_known(rows: list[dict[str, object]]) -> tuple[float, float, float]:
    """Claim that all points lie on their lines; return the largest distance of flows and SGD, and of SGD where c < 1."""
    flow, sgd, low = 0.0, 0.0, 0.0
    for row in rows:
        name = f"{row['loss']}, rho = {row['rho']}"
        rest, mean, error, end = (float(str(row[key])) for key in ("predicted", "sgd", "standard_error", "flow"))
        claim(
            abs(end - rest) < FLOW * max(1, rest), f"{name}: the flow ends at {end:.8g}, the closed form is {rest:.8g}"
        )
        allowed = SHARE * rest + SMALL + ERRORS * error if rest else SMALL
        claim(
            abs(mean - rest) < allowed, f"{name}: SGD ends at {mean:.4g} ± {error:.2g}, the closed form is {rest:.4g}"
        )
        flow, sgd = max(flow, abs(end - rest)), max(sgd, abs(mean - rest))
        low = max(low, abs(mean - rest)) if rest < 1 else low
    return flow, sgd, low


def finish_known(ax: plt.Axes) -> None:
    """Label the axes, and mark where views are negatively correlated."""
    ax.axvspan(1, 2, zorder=0, **NEGATIVE)
    for text, place, color in (("InfoNCE", (0.21, 2.35), PALETTE[0]), ("Barlow\nTwins", (0.63, 2.05), PALETTE[1])):
        ax.text(*place, text, color=color, fontsize=8)
    for text, place in (("λ = 2", (0.12, 0.3)), ("λ = 1", (0.79, 0.27)), ("VCReg, λ = ½", (1.2, 0.46))):
        ax.text(*place, text, color=PALETTE[2], fontsize=8)
    ax.set(
        xlim=(0, 2),
        ylim=(-0.06, 2.6),
        ylabel="embedding variance $c$",
        title="(a) rest points: theory (lines), flow (+) and SGD",
    )
    ax.tick_params(labelbottom=False)


def draw_thresholds(ax: plt.Axes) -> None:
    """Draw for every loss the range of rho in which a mode lives, with the symbol of its points."""
    ax.axvspan(1, 2, zorder=0, **NEGATIVE)
    ordered = sorted(KNOWN, key=lambda setting: -setting.threshold)
    for place, setting in enumerate(ordered):
        end, color = setting.threshold, setting.color
        ax.plot([0, end], [place, place], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot([end, 2], [place, place], ":", color=color, linewidth=1)
        ax.plot(end, place, "|", color=PALETTE[6], markersize=9, markeredgewidth=1.5, clip_on=False)
        ax.plot(0.25, place, setting.marker, color=color, markersize=6, markeredgecolor="w", markeredgewidth=0.7)
    ax.set_yticks(range(len(ordered)), [setting.label for setting in ordered], fontsize=8)
    for tick, setting in zip(ax.get_yticklabels(), ordered, strict=True):
        tick.set_color(setting.color)
    ax.set(ylim=(len(ordered) - 0.4, -0.6), xlabel=r"augmentation over data, $\rho = a_e / 2 s_e$")
    ax.set_title("(b) a mode lives along the bar and dies at its end")
    ax.tick_params(axis="y", length=0)


def draw_measured(ax: plt.Axes, setting: Setting, options: Options, rows: list[dict[str, object]]) -> float:
    """Draw the shares of the modes under a loss without closed form; return the largest rho that is alive."""
    runs = options.fewer
    product = trained(setting, runs, options).product[-1]
    if setting.objective.loss == "barlow-normalised":  # which sees every output at standard deviation 1
        product = product / product.norm(dim=-1, keepdim=True)
    shares = product.square().sum(-2) / product.square().sum((-2, -1))[:, None]
    mean, error = shares.mean(0), shares.std(0) / runs**0.5
    shown, rho = mean >= FLOOR, torch.tensor(setting.rho, dtype=torch.float64)
    style = {"color": setting.color, "marker": setting.marker, "linestyle": "none", "markersize": 4.5}
    ax.errorbar(
        rho[shown], mean[shown], error[shown], label=setting.label, markeredgecolor="w", markeredgewidth=0.5, **style
    )
    ax.plot(rho[~shown], torch.full_like(rho[~shown], FLOOR), markerfacecolor="none", clip_on=False, **style)
    for k, value in enumerate(setting.rho):
        rows.append({"panel": "measured", "loss": setting.label, "rho": value, "predicted": None})
        rows[-1] |= {"sgd": float(mean[k]), "standard_error": float(error[k]), "flow": None}
    return float(rho[mean > ALIVE].max())


def finish_measured(ax: plt.Axes) -> None:
    """Label the axes of the losses without a closed form."""
    ax.axvspan(1, 2, zorder=0, **NEGATIVE)
    ax.set(yscale="log", ylim=(FLOOR, 6), xlim=(0, 1.6), xlabel=r"$\rho$", ylabel="share of the embedding's variance")
    ax.set_yticks([1e-3, 1e-2, 1e-1, 1])
    ax.set_title("(c) no closed form: SGD alone")
    ax.legend(loc="upper right", handletextpad=0.1, borderaxespad=0, labelspacing=0.3)


if __name__ == "__main__":
    draw.main()
