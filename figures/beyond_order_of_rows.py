"""Beyond the paper: does a higher rank, or a lower rho, go with a better probe? All rows and ablations on CIFAR-10."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from figure import Result, claim, drawn_with, number, plt, record
from matplotlib.axes import Axes

from dyncollapse import SettingError
from dyncollapse.bridge import Run, compare, find_runs
from dyncollapse.plotting import LEVEL, PALETTE, ramp

KEPT = Path(__file__).parent.parent / "docs" / "data" / "cifar10"
NAMES = {
    "mlp": "nonlinear projector",
    "linear": "linear projector",
    "none": "no projector",
    "low-rank-diagonal": "DirectCLR",
}
COLOURS = dict(zip(NAMES, PALETTE, strict=False))
OTHER = (LEVEL, "other projectors")
MARKERS = "os^vDP*X<>hpd8"
REPRESENTATION = "representation"
Gains = list[tuple[str, str, list[float], float]]  # setting, projector, differences by seed, error of one
SHORT, FEW, SOFT = "5 epochs", "2000 images", "5 epochs, temperature 0.5"  # settings with three seeds of both rows
LESS = 1.5
TEMPERATURE, BATCH, WIDTH = 0.1, 256, 512  # of most kept runs


def setting(run: Run) -> str:
    """What distinguishes a run's setting from that of most runs, whatever its projector and seed."""
    recipe = run.recipe
    words = [f"{recipe.epochs} epochs"] if recipe.images is None else [f"{recipe.images} images"]
    words += [f"temperature {recipe.temperature:g}"] if recipe.temperature != TEMPERATURE else []
    words += [f"batch {recipe.batch_size}"] if recipe.batch_size != BATCH else []
    words += [f"width {run.facts['representation_dim']}"] if run.facts["representation_dim"] != WIDTH else []
    words += ["strong augmentation"] if recipe.crop_scale is not None else []
    return ", ".join(words)


def beyond_one(run: Run) -> float | None:
    """Share of the representation's directions along which augmentation varies more than data, rho >= 1; percent."""
    return 100 * sum(rho >= 1 for rho in run.ratios) / len(run.ratios) if run.ratios else None


@record
class Options:
    """Which kept runs are drawn, and how."""

    folder: Path = number(KEPT, "Folder with runs, as `bridge check` keeps them.", unset="docs/data/cifar10")
    colours: Literal["projector", "epochs", "seed"] = number(
        "projector", "What the colours of (a) and (b) are: projector, or from dark to light epochs or seed."
    )


@drawn_with(Options)
def draw(options: Options) -> Result:
    """Draw top-1 against rank and against rho, effective rank by depth, and what the projector adds in each setting."""
    runs = [run for run in find_runs([options.folder]) if run.top1() is not None and run.diagnosis is not None]
    if not runs:
        raise SettingError("`folder` has no run that is diagnosed and probed; name another folder")
    figure = plt.figure(figsize=(10.5, 7.8))
    upper, lower = figure.subfigures(2, 1)  # long labels of a lower panel leave the upper ones as they are
    (a, b), (c, d) = upper.subplots(1, 2), lower.subplots(1, 2)
    facts = runs[0].facts
    words = f"{facts['data']}, {runs[0].recipe.arch}, representation of {facts['representation_dim']}"
    figure.suptitle(words, fontsize=9)
    settings = sorted(
        {setting(run) for run in runs}, key=lambda name: (-sum(setting(run) == name for run in runs), name)
    )
    scatter(a, runs, settings, options, lambda run: run.measure(REPRESENTATION, "effective_rank"))
    a.set(xlabel="effective rank of the representation", ylabel="linear probe, top-1 (%)", xscale="log")
    scatter(b, runs, settings, options, beyond_one)
    b.set(xlabel=r"directions of the representation with $\rho \geq 1$ (%)", ylabel="linear probe, top-1 (%)")
    by_depth(c, [run for run in runs if setting(run) == settings[0]])
    gains = what_a_projector_adds(runs, settings)
    draw_gains(d, gains)
    for letter, ax in zip("abcd", (a, b, c, d), strict=True):
        ax.set_title(f"({letter})", loc="left")
    short, few, warm = check(runs, gains)
    found = {one["measure"]: one for one in compare(runs)["associations"]}
    rank, rho = found["effective rank r"]["spearman"], found["directions rho >= 1, r"]["spearman"]
    rows = [
        {
            "run": run.folder.name,
            "projector": run.recipe.head,
            "setting": setting(run),
            "seed": run.recipe.seed,
            "top1": run.top1(),
            "effective_rank": run.measure(REPRESENTATION, "effective_rank"),
            "beyond_one": beyond_one(run),
            "loss": run.log[-1]["loss"],
        }
        for run in runs
    ]
    return Result(
        figure,
        rows,
        f"""{len(rows)} runs of SimCLR with each projector, and of DirectCLR, on CIFAR-10 ({runs[0].recipe.arch}, batches of {BATCH} unless named, {len({run.recipe.seed for run in runs})} seeds; the settings and
commands are in docs/results.md). Spectra over at most 10 000 training images under the two views of the loss; logistic probe, its
decay chosen on a held-out fifth. Colours are projectors, markers settings. (a) Top-1 against the effective rank of the representation: rank
correlation {rank:+.2f} over runs. (b) Top-1 against the share of the representation's directions along which augmentation varies
more than data, rho >= 1: rank correlation {rho:+.2f}. Neither is a cause: settings differ in more than one measure. (c) The effective rank
of the features after each stage, {settings[0]}; bands are the range over seeds. (d) Top-1 minus that without projector of the same
seed; bars are the standard error of one pair of probes. [[With the nonlinear projector: {", ".join(f"{value:+.1f}" for value in short)} points after 5 epochs of 50 000 images, and
{", ".join(f"{value:+.1f}" for value in few)} after 250 epochs of 2000 images, which take twice as many steps. At higher temperatures it gains {"; ".join(f"{', '.join(f'{value:+.1f}' for value in values)} ({name})" for name, values in sorted(warm.items()))}.]]""",
        f"""at temperature {TEMPERATURE} the representation's effective rank is at least {LESS} times higher without a projector than with the
nonlinear one, in every setting, and at temperature 0.5 after 5 epochs at least {LESS} times lower; the nonlinear projector loses
with every seed after 5 epochs, and wins with every seed on 2000 images and at every temperature above {TEMPERATURE}.""",
    )


def check(runs: list[Run], gains: Gains) -> tuple[list[float], list[float], dict[str, list[float]]]:
    """Claim what the figure asserts, and return what the nonlinear projector adds in the settings that it names."""
    sharp = ranks_in_pairs([run for run in runs if run.recipe.temperature == TEMPERATURE])
    soft = ranks_in_pairs([run for run in runs if setting(run) == SOFT])
    claim(
        all(bare > LESS * other for bare, other in sharp),
        f"at temperature {TEMPERATURE} the representation's rank is {LESS} times higher without a projector: {sharp}",
    )
    claim(
        len(soft) > 0 and all(LESS * bare < other for bare, other in soft),
        f"after {SOFT} it is {LESS} times lower without a projector: {soft}",
    )
    added = {name: values for name, head, values, _ in gains if head == "mlp"}
    few, short = added.get(FEW, []), added.get(SHORT, [])
    claim(min(len(few), len(short)) >= 3, "both settings have three seeds")
    claim(
        max(short, default=1) < 0 < min(few, default=-1),
        f"the projector loses after 5 epochs and wins on 2000 images: {short}, {few}",
    )
    warm = {name: values for name, values in added.items() if "temperature" in name}
    claim(
        SOFT in warm and all(min(values) > 0 for values in warm.values()),
        f"the nonlinear projector gains at every temperature above {TEMPERATURE}: {warm}",
    )
    return short, few, warm


def ranks_in_pairs(runs: list[Run]) -> list[tuple[float, float]]:
    """Effective ranks of the representation without and with the nonlinear projector, in the same setting and seed."""
    ranks = {
        (setting(run), run.recipe.seed, run.recipe.head): run.measure(REPRESENTATION, "effective_rank") for run in runs
    }
    return [
        (rank, ranks[name, seed, "mlp"])
        for (name, seed, head), rank in ranks.items()
        if head == "none" and (name, seed, "mlp") in ranks
    ]


def scatter(
    ax: Axes, runs: list[Run], settings: list[str], options: Options, get: Callable[[Run], float | None]
) -> None:
    """Draw top-1 against a measure: colours as the options say, markers settings."""
    colours = colours_of(runs, options.colours)
    for run in runs:
        value = get(run)
        if value is not None:
            marker = MARKERS[settings.index(setting(run)) % len(MARKERS)]
            colour = colours[kind(run, options.colours)]
            ax.plot(value, run.top1(), marker, color=colour, markersize=4.5, alpha=0.8)
    if ax.get_subplotspec().is_first_col():
        for name, colour in colours.items():
            ax.plot([], [], "o", color=colour, label=name)
    else:
        for marker, name in zip(MARKERS, settings, strict=False):
            ax.plot([], [], marker, color=LEVEL, label=name)
    ax.margins(y=0.15)
    if ax.get_subplotspec().is_first_col():
        ax.legend(fontsize=7, loc="upper left")
    else:  # many settings, beside the points
        ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def kind(run: Run, colours: str) -> str:
    """What gives a run its colour."""
    if colours == "projector":
        return NAMES.get(run.recipe.head, OTHER[1])
    return f"{run.recipe.epochs} epochs" if colours == "epochs" else f"seed {run.recipe.seed}"


def colours_of(runs: list[Run], colours: str) -> dict[str, str]:
    """A colour for each kind of run: of the palette for projectors, else in order from dark to light."""
    if colours == "projector":
        known = {NAMES[head]: colour for head, colour in COLOURS.items()} | {OTHER[1]: OTHER[0]}
        found = {kind(run, colours) for run in runs}
        return {name: colour for name, colour in known.items() if name in found}
    found = list(
        dict.fromkeys(kind(run, colours) for run in sorted(runs, key=lambda r: (r.recipe.epochs, r.recipe.seed)))
    )
    names = found if colours == "epochs" else sorted(found)
    return dict(zip(names, ramp(len(names)), strict=True))


def own_size(run: Run) -> bool:
    """Whether a run's projector has the size that the paper's rows have, none that was chosen."""
    return run.recipe.d0 is None and run.recipe.out_dim is None


def by_depth(ax: Axes, runs: list[Run]) -> None:
    """Draw the effective rank after each stage, for the rows of Table 1: the mean over seeds, with their range."""
    for head, name in NAMES.items():
        found = [run for run in runs if run.recipe.head == head and run.diagnosis.get("depth") and own_size(run)]
        if not found:
            continue
        ranks = [[stage["effective_rank"] for stage in run.diagnosis["depth"]] for run in found]
        stages = [stage["stage"].removeprefix("backbone.") for stage in found[0].diagnosis["depth"]]
        mean = [math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*ranks, strict=True)]
        ax.plot(range(len(mean)), mean, "o-", color=COLOURS[head], label=name)
        ax.fill_between(
            range(len(mean)),
            *zip(*((min(c), max(c)) for c in zip(*ranks, strict=True)), strict=True),
            color=COLOURS[head],
            alpha=0.25,
        )
        if head == "mlp":
            ax.set_xticks(range(len(stages)), stages, rotation=30, ha="right")
    ax.set(yscale="log", ylabel="effective rank")
    ax.legend(fontsize=7)


def what_a_projector_adds(runs: list[Run], settings: list[str]) -> Gains:
    """By setting and projector: differences of top-1 to no projector of the same seed, and the probes' own error."""
    gains = []
    for name in settings:
        here = [run for run in runs if setting(run) == name]
        bare = {run.recipe.seed: run for run in here if run.recipe.head == "none"}
        for head in ("mlp", "linear", "low-rank-diagonal"):
            pairs = [
                (run, bare[run.recipe.seed])
                for run in here
                if run.recipe.head == head and run.recipe.seed in bare and own_size(run)
            ]
            if pairs:
                error = math.hypot(*(run.probe()["error"] for run in pairs[0]))
                gains.append((name, head, [a.top1() - b.top1() for a, b in pairs], error))
    return gains


def draw_gains(ax: Axes, gains: Gains) -> None:
    """Draw the differences: a dot for each seed; bars are the error of one pair of probes."""
    for place, (_, head, values, error) in enumerate(gains):
        ax.errorbar(
            values,
            [place] * len(values),
            xerr=error,
            fmt="o",
            color=COLOURS[head],
            markersize=4,
            linewidth=0.8,
        )
    ax.axvline(0, color=LEVEL, linewidth=0.8, label="no projector")
    ax.legend(fontsize=7, loc="upper right")
    ax.set_yticks(range(len(gains)), [f"{name}: {NAMES[head]}" for name, head, *_ in gains], fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("top-1 minus that of no projector (%)")


if __name__ == "__main__":
    draw.main()
