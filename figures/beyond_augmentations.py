"""Beyond the paper: which operation of an augmentation costs which directions of the pixels."""

from dataclasses import dataclass

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from torch import Tensor

from dyncollapse.bridge import (
    AugmentationTable,
    Directions,
    Effect,
    HeldImages,
    OperationRow,
    Pipeline,
    ViewPairs,
    ViewSettings,
    augmentation_table,
    find_directions,
    measure_pairs,
    open_data,
    open_pipeline,
)
from dyncollapse.plotting import FAINT, PALETTE

SIDE, DRAWN = 8, 10
FLIP = ViewSettings(flip=0.5).as_view()
ROUNDING, ERRORS, PURE = 1e-4, 4, 0.999  # views are float32; standard errors; squared share of antisymmetric patterns
LOUD, QUIET = 0.2, 0.05  # shares of the variance that crops empty at least, and noise at most

NO_VALUES: dict[str, object] = dict.fromkeys(
    ("what", "signal_rank", "shared_signal", "p", "gamma", "standard_error", "known"), ""
)


@dataclass(frozen=True)
class Known:
    """An operation with probability p, and the correlation of two views that it leaves along what it changes."""

    label: str
    setting: str
    marker: str
    formula: str

    def gamma(self, p: Tensor | float) -> Tensor:
        """Correlation in closed form: the sign of a flip is lost, colour and detail are there or not."""
        p = torch.as_tensor(p)
        return (1 - 2 * p).square() if self.setting == "flip" else 1 - p


KNOWN = (
    Known("flip: antisymmetric", "flip", "s", "(1 - 2p)²"),
    Known("grey: colour", "grey", "o", "1 - p"),
    Known("blur: checkerboard", "blur", "^", "1 - p"),
)


@record
class Options:
    """Parameters of the comparison of operations."""

    images: Whole = number(4000, "Images of random pixels in panel (c).", low=100, high=10**5, unit="images")
    step: Number = number(0.1, "Distance of the probabilities in panel (c).", low=0.02, high=0.45)
    seed: Whole = like("seed", 0)


@drawn_with(Options, images=500, step=0.25)
def draw(options: Options) -> Result:
    """Draw what each operation costs the digits, correlations that are known, and emptied directions as images."""
    planted = options.images
    images, pipeline = open_data("digits").train, open_pipeline("digits", 1)
    pairs = ViewPairs(images, pipeline, size=SIDE, seed=options.seed)
    table = augmentation_table(pairs, directions(pairs, options.seed))
    alone = {name: directions(pairs.with_(pipeline=pipeline.only(name)), options.seed) for name in pipeline.operations}
    alone["flip"] = directions(pairs.with_(pipeline=Pipeline(FLIP, FLIP, "flip")), options.seed)
    check_digits(table, alone)
    figure = plt.figure(figsize=(7.4, 6.6))
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    ranks, signal, known = upper.subplots(1, 3, width_ratios=(1, 1, 1.35))
    rows = draw_table(ranks, signal, table)
    worst = draw_known(known, options, rows)
    draw_images(lower, alone)
    odd, whole, lost = antisymmetric(alone["flip"])
    count = alone["flip"].count
    return Result(
        figure,
        rows,
        f"""What the operations of an augmentation cost. (a), (b) {table.images} handwritten digits (scikit-learn's, {SIDE} x {SIDE} pixels, {table.directions} directions) under the
operations of the digits' pipeline, each alone and all but it, two views drawn alike, seed {options.seed}. (a) Directions along which the views share signal
beyond what sampling explains; dashed: all operations together, {table.whole.signal_rank}. (b) Sum of the correlations gamma over all directions; dashed: all
together, {table.whole.shared_signal:.1f}. [[Crops cost most:]] crops alone leave {row_of(table, "crop").alone.signal_rank}, and without them there are {left_out(table, "crop").signal_rank}.
(c) Correlation of two views along what an operation changes, by its probability, in closed form (lines) and measured (symbols, with one standard
error) on {planted} images of independent random pixels. Flips empty antisymmetric directions with probability 1/2, and share them again
beyond. Grey and blur leave 1 - p: colour and detail are emptied only as p goes to 1. Largest deviation {worst:.1f} standard errors.
(d) Directions of the digits that an operation alone has emptied, of largest variance first, and the share of the variance of the views
that such directions hold. [[Crops empty shifts, colour jitter the brightness of the whole, noise what varies least.]] Flips, which the digits' pipeline does not have, leave gamma = 1 along the {whole} symmetric directions of {count}, and of the {count - whole} antisymmetric ones the test counts {count - whole - lost} as shared; a
share of {odd:.5f} of the squared patterns that they empty is antisymmetric.""",
        f"""what flips empty is antisymmetric (share above {PURE}), and gamma = 1 within {ROUNDING:g} along all symmetric directions; correlations in (c) within {ERRORS} standard
errors; every operation alone, and all but it, leave at least as many directions as all together; crops cost most; they empty
more than {LOUD:.0%} of the variance, and noise less than {QUIET:.0%}.""",
    )


def directions(pairs: ViewPairs, seed: int) -> Directions:
    """Directions of all pixels under the pairs' pipeline."""
    return find_directions(measure_pairs(pairs, "two-sided", len(pairs), seed), SIDE**2, alike=True)


def emptied(found: Directions) -> tuple[Tensor, float]:
    """Unit patterns (d, k) without shared signal, largest variance first, and their share of the variance."""
    inner = found.measured.moments.view_cov @ (found.frame.T @ found.vectors[:, ~found.shared])
    patterns, sizes, _ = torch.linalg.svd(inner, full_matrices=False)
    return found.frame @ patterns, float(sizes.square().sum() / found.measured.moments.view_cov.trace())


def antisymmetric(found: Directions) -> tuple[float, int, int]:
    """Antisymmetric share of what flips empty, number of directions left as they are, and number of those emptied."""
    patterns = emptied(found)[0].T.reshape(-1, SIDE, SIDE)
    odd = (patterns - patterns.flip(-1)) / 2
    share = float(odd.square().sum() / patterns.square().sum())
    return share, int((found.rho < ROUNDING).sum()), int((~found.shared).sum())


def row_of(table: AugmentationTable, operation: str) -> OperationRow:
    """The row of an operation."""
    return next(row for row in table.rows if row.operation == operation)


def left_out(table: AugmentationTable, operation: str) -> Effect:
    """The effect of all operations but one."""
    return next(row.without for row in table.rows if row.operation == operation and row.without)


def check_digits(table: AugmentationTable, alone: dict[str, Directions]) -> None:
    """Claim what the caption says of the digits."""
    flipped = alone["flip"]
    odd, whole, _ = antisymmetric(flipped)
    claim(odd > PURE, f"flips empty antisymmetric directions: {odd:.5f}")
    # The trace of the mirror is the number of symmetric directions minus that of antisymmetric ones.
    mirrored = flipped.frame.T.reshape(-1, SIDE, SIDE).flip(-1).reshape(flipped.count, -1)
    symmetric = (flipped.count + round(float((mirrored @ flipped.frame).trace()))) // 2
    claim(whole == symmetric, f"flips leave gamma = 1 along {whole} directions, and {symmetric} are symmetric")
    for row in table.rows:
        claim(row.without is not None, f"there are operations beside {row.operation}")
        ranks = row.alone.signal_rank, left_out(table, row.operation).signal_rank
        claim(min(ranks) >= table.whole.signal_rank, f"{row.operation} leaves as many as all together: {ranks}")
    costs = {
        row.operation: row.alone.shared_signal - left_out(table, row.operation).shared_signal for row in table.rows
    }
    claim(min(costs, key=lambda name: costs[name]) == "crop", f"crops cost most: {costs}")
    shares = {name: emptied(found)[1] for name, found in alone.items()}
    claim(
        shares["crop"] > LOUD and shares["noise"] < QUIET, f"crops empty much of the variance, noise little: {shares}"
    )


def draw_table(left: plt.Axes, right: plt.Axes, table: AugmentationTable) -> list[dict[str, object]]:
    """Draw the signal rank and the shared signal of each operation alone, and of all but it."""
    names = [row.operation for row in table.rows]
    place = torch.arange(len(names)).flip(0)
    for ax, key in ((left, "signal_rank"), (right, "shared_signal")):
        bars = {
            "alone": ([getattr(row.alone, key) for row in table.rows], 0.2, PALETTE[2]),
            "all but it": ([getattr(left_out(table, name), key) for name in names], -0.2, PALETTE[4]),
        }
        for label, (values, shift, color) in bars.items():
            ax.barh(place + shift, values, 0.38, color=color, label=label)
        ax.axvline(getattr(table.whole, key), color=PALETTE[6], linewidth=1, linestyle="--", label="all together")
        ax.set_yticks(place, names if ax is left else [""] * len(names))
        ax.set_xlim(0, table.directions)
    left.set(xlabel=f"of {table.directions} directions", title="(a) share signal")
    right.set(xlabel="sum of gamma", title="(b) shared signal")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    effects = [("all together", table.whole)]
    for row in table.rows:
        effects += [(f"{row.operation} alone", row.alone), (f"all but {row.operation}", left_out(table, row.operation))]
    return [
        NO_VALUES | {"what": name, "signal_rank": effect.signal_rank, "shared_signal": effect.shared_signal}
        for name, effect in effects
    ]


def draw_known(ax: plt.Axes, options: Options, rows: list[dict[str, object]]) -> float:
    """Draw correlations with a known answer; return the largest deviation in standard errors."""
    generator, worst = torch.Generator().manual_seed(options.seed), 0.0
    pixels = torch.randint(64, 192, (options.images, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    images = HeldImages(pixels, torch.zeros(options.images, dtype=torch.int64), "random pixels")
    fine = torch.linspace(0, 1, 101)
    for k, known in enumerate(KNOWN):
        ax.plot(fine, known.gamma(fine), color=FAINT if k else PALETTE[0], zorder=1)
        places = torch.arange(options.step, 1 - options.step / 4, options.step).tolist()
        measured = [correlation(images, known.setting, p, options.seed) for p in places]
        for p, (gamma, error) in zip(places, measured, strict=True):
            expected = float(known.gamma(p))
            off = abs(gamma - expected) / error
            claim(off < ERRORS, f"{known.label}, p = {p:g}: gamma is {gamma:.3f} ± {error:.3f}, known {expected:.3f}")
            worst = max(worst, off)
            rows.append(NO_VALUES | {"what": known.label, "p": p, "gamma": gamma})
            rows[-1] |= {"standard_error": error, "known": expected}
        style = {"linestyle": "none", "markeredgecolor": "w", "markeredgewidth": 0.5, "markersize": 5}
        values, errors = zip(*measured, strict=True)
        ax.errorbar(places, values, errors, marker=known.marker, color=PALETTE[k], label=known.label, **style)
    ax.text(0.52, 0.52, "1 - p", color=FAINT)
    ax.text(0.02, 0.1, "(1 - 2p)²", color=PALETTE[0])
    ax.set(
        xlim=(0, 1), ylim=(-0.05, 1.0), xlabel="probability p of the operation", ylabel="gamma along what it changes"
    )
    ax.set_title("(c) known answers")
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22))
    return worst


def correlation(images: HeldImages, setting: str, p: float, seed: int) -> tuple[float, float]:
    """Correlation of two views over the directions that an operation changes, and its standard error."""
    blur = {"blur_sigma": (2.0, 2.0), "blur_size": 2 * SIDE - 1} if setting == "blur" else {}
    view = ViewSettings(**{setting: p}, **blur).as_view()  # type: ignore[arg-type]
    first, second = (
        torch.cat(views).double().reshape(-1, 3, SIDE, SIDE)
        for views in zip(*ViewPairs(images, Pipeline(view, view, setting), size=SIDE, seed=seed), strict=True)
    )
    scores = [changed(view, setting) for view in (first, second)]
    y, y_pos = (one - one.mean(0) for one in scores)
    shared, power = (y * y_pos).sum(1), (y.square() + y_pos.square()).sum(1) / 2
    gamma = shared.mean() / power.mean()
    return float(gamma), float((shared - gamma * power).std() / power.mean() / len(y) ** 0.5)


def changed(views: Tensor, setting: str) -> Tensor:
    """Coordinates (n, k) of views along the directions that an operation changes."""
    if setting == "flip":
        return (views - views.flip(-1)).flatten(1)
    if setting == "grey":
        return (views - views.mean(1, keepdim=True)).flatten(1)
    place = torch.arange(SIDE)
    board = 1 - 2 * ((place[:, None] + place) % 2).double()
    return (views * board).sum((-2, -1))


def draw_images(part: plt.Figure, alone: dict[str, Directions]) -> None:
    """Draw for each operation the emptied directions of largest variance."""
    axes = part.subplots(len(alone), DRAWN)
    for line, (name, found) in zip(axes, alone.items(), strict=True):
        patterns, share = emptied(found)
        for ax in line:
            ax.axis("off")
        line[0].text(
            -0.2, 0.5, f"{name}\n{share:.1%}", ha="right", va="center", transform=line[0].transAxes, fontsize=8
        )
        for ax, image in zip(line, patterns.T.reshape(-1, SIDE, SIDE), strict=False):
            largest = float(image.abs().max())
            ax.imshow(image.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    part.suptitle(
        "(d) directions of the digits that one operation empties, and their share of the variance", fontsize=9
    )


if __name__ == "__main__":
    draw.main()
