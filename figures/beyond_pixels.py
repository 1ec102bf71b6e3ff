"""Beyond the paper: what a linear encoder keeps of real pixels, predicted from two measured moments before training."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from scipy.stats import spearmanr
from torch import Tensor

from dyncollapse import PairMoments, SettingError, rest_modes
from dyncollapse.bridge import (
    Directions,
    LinearEncoder,
    Measured,
    Pipeline,
    View,
    ViewPairs,
    find_directions,
    measure_pairs,
    open_data,
    projected_pairs,
    some_images,
    train_linear_encoder,
)
from dyncollapse.plotting import FAINT, PALETTE

SIDE = 8
VIEW = View(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), flip=0.0, jitter_probability=0.0, grey=0.0)
NAMES = {"spectral": "spectral", "vcreg": "VCReg", "barlow": "Barlow Twins", "infonce": "InfoNCE"}
MARKERS = {"spectral": "s", "vcreg": "^", "barlow": "D", "infonce": "o"}
# Batches of 1024 of 1297 pairs know covariances to sqrt(2 / 1024 * (1 - 1024 / 1297)) = 2 %. Bounds are four times as
# large, since what is left of a direction next to its threshold is a small difference of two covariances.
DISTANCE, LARGEST, EMPTY, ORDER = 0.08, 0.08, 1e-3, 0.8
GAUSSIAN = 20_000  # pairs with the moments of the pixels and a Gaussian distribution
DRAWN = 11  # images in a row
NEEDS_CIFAR = " A panel of CIFAR-10 needs its images: --cifar FOLDER."
EDGE = {"markeredgecolor": "w", "markeredgewidth": 0.4, "markersize": 5, "clip_on": False}


@dataclass(frozen=True)
class Trained:
    """An encoder after SGD beside its prediction: covariances K of its embedding in whitened inputs, and times."""

    label: str
    expected: Tensor
    found: Tensor
    steps: Tensor
    steps_found: Tensor

    @property
    def values(self) -> tuple[Tensor, Tensor]:
        """Singular values of the embedding, predicted and found, descending."""
        predicted, found = (torch.linalg.eigvalsh(k).clamp_min(0).sqrt().flip(0) for k in (self.expected, self.found))
        return predicted, found

    @property
    def alive(self) -> tuple[int, int]:
        """Number of singular values above EMPTY, predicted and found."""
        predicted, found = self.values
        return int((predicted > EMPTY).sum()), int((found > EMPTY).sum())

    @property
    def distance(self) -> float:
        """Relative distance of the covariances, directions and all."""
        return float((self.found - self.expected).norm() / self.expected.norm())

    @property
    def relative(self) -> Tensor:
        """Relative errors of the surviving singular values."""
        predicted, found = (values[: self.alive[0]] for values in self.values)
        return (found / predicted - 1).abs()

    @property
    def order(self) -> float:
        """Rank correlation of learning steps."""
        return float(spearmanr(self.steps, self.steps_found).statistic) if len(self.steps) > 1 else math.nan


@record
class Options:
    """Parameters of the linear encoder on pixels."""

    directions: Whole = number(32, "Principal directions of the digits.", low=8, high=64)
    fewest: Whole = number(
        9, "Directions that live at least; weight decay lies in a gap of the spectrum below.", low=2, high=50
    )
    noise: Number = number(0.1, "Standard deviation of the noise of a view.", low=0.01, high=1)
    batch_size: Whole = like("batch_size", 512, "Pairs in a batch of InfoNCE.")
    lr: Number = like("lr", 0.05, "Learning rate; twice it for InfoNCE.")
    steps: Whole = like("steps", 1500, low=100)
    cifar: Path | None = number(
        None, "Folder of CIFAR-10's images, for two more panels.", unset="none", metavar="FOLDER"
    )
    cifar_images: Whole = number(3000, "Images of CIFAR-10 in these panels.", low=1000, high=50_000, unit="images")
    seed: Whole = like("seed", 0)

    def __post_init__(self) -> None:
        """Refuse more living directions than there are."""
        if self.fewest + 5 > self.directions:
            raise SettingError(
                f"`fewest` is {self.fewest}; it must be at most `directions` less 5, {self.directions - 5}"
            )

    @property
    def pipeline(self) -> Pipeline:
        """Two views drawn alike."""
        view = replace(VIEW, noise=self.noise)
        return Pipeline(view, view, "crops and noise")


@drawn_with(Options, directions=12, fewest=5, batch_size=128, steps=500, cifar_images=1000)
def draw(options: Options) -> Result:
    """Draw predicted and trained spectra and learning times on digits, and the directions kept and lost as images.

    With a folder of CIFAR-10's images, also draw spectra and times on these.
    """
    count, fewest, batch, steps, cifar = (
        options.directions, options.fewest, options.batch_size, options.steps, options.cifar,
    )  # fmt: skip
    pairs = ViewPairs(open_data("digits").train, options.pipeline, size=SIDE, seed=options.seed)
    found = find_directions(measure_pairs(pairs, "two-sided", len(pairs), options.seed), count, alike=True)
    decay, every = decay_in_gap(found.measured.moments, fewest), projected_pairs(pairs, found)
    exact = {loss: trained(found, every, loss, decay, options) for loss in ("spectral", "vcreg", "barlow")}
    infonce = trained(found, every, "infonce", decay / 2, options)
    control = trained(found, gaussian(found.measured.moments, options.seed), "infonce", decay / 2, options)
    check(exact)
    check_infonce(infonce, control)
    figure = plt.figure(figsize=(7.2, 8.4 if cifar else 5.4))
    upper, lower, *below = figure.subfigures(3 if cifar else 2, 1, height_ratios=(1.25, 1, 1.25)[: 3 if cifar else 2])
    left, right = upper.subplots(1, 2, width_ratios=(1.3, 1))
    draw_spectra(left, exact, infonce, control)
    draw_times(right, {**exact, "infonce": infonce}, "(b) when a direction is learnt")
    on_cifar, needs = cifar_row(below[0], options) if cifar else ({}, NEEDS_CIFAR)
    lost = draw_images(lower, found, exact["spectral"])
    alive, keeps = exact["spectral"].alive[0], infonce.alive
    worst = {loss: one.relative for loss, one in [*exact.items(), ("infonce", infonce), ("gaussian", control)]}
    numbers = {loss: f"{float(one.median()):.1%} (at most {float(one.max()):.0%})" for loss, one in worst.items()}
    return Result(
        figure,
        rows({**exact, "infonce": infonce, "infonce, Gaussian control": control, **on_cifar}),
        f"""A linear encoder on {len(every.first)} handwritten digits (scikit-learn's, {SIDE} x {SIDE} pixels; {count} principal directions, {found.share:.0%} of
the variance) under random crops of 50 to 100 % of the area and noise of {options.noise:g}, two views drawn alike, weight decay {decay} (InfoNCE, whose
modes grow half as fast, {decay / 2:g}), in a gap of the spectrum, so that no direction is next to its threshold. The
prediction sees two covariances of the views and nothing else. SGD: {steps} steps, learning rate {options.lr:g}
(InfoNCE {2 * options.lr:g}), batches of 1024 of the measured pairs (InfoNCE {batch}), start of seed {options.seed}.
(a) Singular values of the embedding (standard deviations, by rank): rest points in closed form (lines) and SGD
(symbols). [[{alive} of {count} directions live under spectral, VCReg and Barlow Twins, in theory and in training.]] These losses see second moments only, and
their limits hold for any distribution: SGD's covariance of the embedding, directions included, is within {exact["spectral"].distance:.1%}, {exact["vcreg"].distance:.1%} and {exact["barlow"].distance:.1%} of the
prediction. Surviving singular values differ by {numbers["spectral"]}, {numbers["vcreg"]} and {numbers["barlow"]} in the median.
InfoNCE's limit is for Gaussian views: on pixels its singular values differ by {numbers["infonce"]}, covariances by {infonce.distance:.1%},
and {keeps[1]} of {keeps[0]} directions live. On Gaussian pairs with the same moments (hollow circles) singular values differ by
{numbers["gaussian"]}, covariances by {control.distance:.1%}, from the finite batch.
(b) Step at which a direction has half of its variance at rest, predicted and found. Rank correlation {exact["spectral"].order:.2f}, {exact["vcreg"].order:.2f} and {exact["barlow"].order:.2f}; InfoNCE {infonce.order:.2f}.
(c) Patterns that the embedding keeps, by the closed form of the spectral loss and by SGD, largest first, with their singular
value; and those that it loses, by the variance of the views, of which they hold {lost:.0%}.{needs}""",
        f"""equal numbers of living directions, and all others below {EMPTY:g}; covariances within {DISTANCE:.0%} and each surviving singular value
within {LARGEST:.0%} of the largest (spectral, VCReg, Barlow Twins); rank correlation of times above {ORDER}; InfoNCE's covariance is further off
on pixels than on Gaussian pairs, and it keeps no direction more than predicted.""",
    )


def cifar_row(part: plt.Figure, options: Options) -> tuple[dict[str, Trained], str]:
    """Draw spectra and learning times on CIFAR-10 at low resolution; return what was trained, and the caption's part."""
    images = some_images(open_data(str(options.cifar), lambda _text: None).train, options.cifar_images, options.seed)
    pairs = ViewPairs(images, options.pipeline, size=SIDE, seed=options.seed)
    found = find_directions(measure_pairs(pairs, "two-sided", len(pairs), options.seed), 32, alike=True)
    moments, every = found.measured.moments, projected_pairs(pairs, found)
    decay, lr = decay_in_gap(moments, 5), 0.1 / (4 * float(torch.linalg.eigvalsh(moments.shared)[-1]))
    exact = {
        loss: trained(found, every, loss, decay, replace(options, lr=lr, steps=3000))
        for loss in ("spectral", "vcreg", "barlow")
    }
    check(exact)
    left, right = part.subplots(1, 2, width_ratios=(1.3, 1))
    draw_values(left, exact)
    left.set_title("(d) CIFAR-10 at rest")
    draw_times(right, exact, "(e) CIFAR-10: when a direction is learnt")
    distances = ", ".join(f"{one.distance:.1%}" for one in exact.values())
    said = (
        f"\n(d), (e) The same for {len(every.first)} images of CIFAR-10 at {SIDE} x {SIDE} pixels, of 32 principal directions "
        f"({found.share:.0%} of the variance), weight decay {decay}, 3000 steps at a learning rate of {lr:.2g}: "
        f"{exact['spectral'].alive[0]} directions live, and covariances are within {distances}."
    )
    return {f"CIFAR-10, {loss}": one for loss, one in exact.items()}, said


def decay_in_gap(moments: PairMoments, fewest: int) -> float:
    """Weight decay between two eigenvalues of 4 G that are far apart: it leaves `fewest` directions or up to 3 more."""
    shared = torch.linalg.eigvalsh(moments.shared).flip(0)
    place = fewest - 1 + int((shared[fewest - 1 : fewest + 3] / shared[fewest : fewest + 4]).argmax())
    return round(4 * float((shared[place] * shared[place + 1]).sqrt()), 2)


def trained(found: Directions, every: Measured, loss: str, decay: float, options: Options) -> Trained:
    """Train an encoder on pairs, and compare its embedding with the rest point of the measured moments."""
    lr, batch = (2 * options.lr, options.batch_size) if loss == "infonce" else (options.lr, 1024)
    encoder = LinearEncoder(weight_decay=decay, lr=lr, steps=options.steps)
    expected, one = train_linear_encoder(found, every, loss, encoder, batch_size=batch, seed=options.seed, alike=True)
    moments = found.measured.moments
    root = moments.seen_root
    ends = rest_modes(moments, loss, weight_decay=decay).gram, one.product.T @ one.product
    at_rest, at_end = (root @ gram @ root for gram in ends)
    kept = (expected.rest > 0.1 * expected.rest.max()) & found.shared
    kept &= torch.isfinite(expected.learning_steps) & torch.isfinite(one.learning_steps)
    return Trained(NAMES[loss], at_rest, at_end, expected.learning_steps[kept], one.learning_steps[kept])


def gaussian(moments: PairMoments, seed: int) -> Measured:
    """Gaussian pairs with the moments of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    pairs = next(iter(moments.gaussian_task().stream(GAUSSIAN, generator, ())))
    return Measured(moments, pairs.anchor, pairs.positive)


def check(exact: dict[str, Trained]) -> None:
    """Claim what the caption says of losses that see second moments."""
    for one in exact.values():
        predicted, found = one.values
        claim(one.alive[0] == one.alive[1], f"{one.label}: {one.alive[0]} directions live, SGD keeps {one.alive[1]}")
        claim(one.distance < DISTANCE, f"{one.label}: covariances are within {DISTANCE:.0%}: {one.distance:.3f}")
        off = float((found - predicted).abs().max() / predicted[0])
        claim(off < LARGEST, f"{one.label}: singular values are within {LARGEST:.0%} of the largest: {off:.3f}")
        claim(one.order > ORDER, f"{one.label}: directions are learnt in the predicted order: {one.order:.3f}")


def check_infonce(infonce: Trained, control: Trained) -> None:
    """Claim what the caption says of InfoNCE on pixels and on Gaussian pairs."""
    off, on_gaussian = infonce.distance, control.distance
    claim(off > on_gaussian, f"InfoNCE is further off on pixels than on Gaussian pairs: {off:.3f}, {on_gaussian:.3f}")
    claim(infonce.alive[1] <= infonce.alive[0], f"InfoNCE keeps no direction more than predicted: {infonce.alive}")


def draw_values(ax: plt.Axes, every: dict[str, Trained]) -> Tensor:
    """Draw singular values by rank; return the ranks."""
    shown = min(min(len(one.expected) for one in every.values()), 20)
    rank = torch.arange(1, shown + 1)
    for k, (loss, one) in enumerate(every.items()):
        color, (predicted, found) = PALETTE[k], (values[:shown] for values in one.values)
        if loss != "vcreg":  # which rests on the line of the spectral loss
            ax.plot(rank, predicted, color=color, zorder=1)
        ax.plot(rank, found, MARKERS[loss], color=color, label=one.label, **EDGE)
    ax.set(ylim=(0, None), xlim=(0.5, shown + 0.5), xlabel="rank", ylabel="singular value of the embedding")
    ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    return rank


def draw_spectra(ax: plt.Axes, exact: dict[str, Trained], infonce: Trained, control: Trained) -> None:
    """Draw singular values by rank, and those on Gaussian pairs."""
    rank = draw_values(ax, {**exact, "infonce": infonce})
    shown = len(rank)
    style = {"marker": "o", "mfc": "none", "markersize": 7, "linestyle": "none", "color": PALETTE[3]}
    ax.plot(
        rank, control.values[1][:shown], label="InfoNCE, Gaussian pairs\nof the same moments", clip_on=False, **style
    )
    ax.set_title("(a) at rest: closed form (lines) and SGD (symbols)")
    ax.legend(loc="upper right")


def draw_times(ax: plt.Axes, every: dict[str, Trained], title: str) -> None:
    """Draw learning steps found over those predicted."""
    ends = torch.cat([torch.cat([one.steps, one.steps_found]) for one in every.values()]).tolist() or [1.0, 10.0]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    ax.plot([low, high], [low, high], color=FAINT, linewidth=0.8, label="equal")
    for k, (loss, one) in enumerate(every.items()):
        ax.plot(one.steps, one.steps_found, MARKERS[loss], color=PALETTE[k], label=one.label, **EDGE)
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    ax.set(xlabel="predicted step", ylabel="step in training")
    ax.set_title(title)
    ax.legend(loc="upper left")


def draw_images(part: plt.Figure, found: Directions, one: Trained) -> float:
    """Draw the patterns kept, by theory and by SGD, and those lost; return the share of the variance of these."""
    root = found.measured.moments.seen_root
    count = one.alive[0]
    (variances, predicted), (_, trained_ones) = (torch.linalg.eigh(k) for k in (one.expected, one.found))
    kept, kept_by_sgd = (root @ vectors.flip(1)[:, :count] for vectors in (predicted, trained_ones))
    signs = (kept * kept_by_sgd).sum(0).sign()
    lost, sizes, _ = torch.linalg.svd(root @ predicted.flip(1)[:, count:], full_matrices=False)
    sign_of_lost = torch.where((found.frame @ lost).sum(0) < 0, -1.0, 1.0)
    drawn = {"kept, theory": kept, "kept, SGD": kept_by_sgd * signs, "lost": lost * sign_of_lost}
    axes = part.subplots(len(drawn), DRAWN)
    for line, (name, patterns) in zip(axes, drawn.items(), strict=True):
        for ax in line:
            ax.axis("off")
        line[0].text(-0.15, 0.5, name, ha="right", va="center", transform=line[0].transAxes, fontsize=8)
        images = (found.frame @ patterns).T.reshape(-1, SIDE, SIDE)[:DRAWN]
        for ax, image in zip(line, images, strict=False):
            largest = float(image.abs().max())
            ax.imshow(image.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    for ax, value in zip(axes[0], variances.flip(0)[:count].sqrt().tolist(), strict=False):
        ax.set_title(f"{value:.2f}", fontsize=7, pad=2)
    part.suptitle("(c) directions of the digits, spectral loss", fontsize=9)
    return float(sizes.square().sum() / found.measured.moments.view_cov.trace())


def rows(trained_ones: dict[str, Trained]) -> list[dict[str, object]]:
    """A row for each singular value, and for each direction's learning step."""
    table: list[dict[str, object]] = []
    for loss, one in trained_ones.items():
        for panel, pair in (("singular value", one.values), ("learning step", (one.steps, one.steps_found))):
            for rank, (predicted, found) in enumerate(zip(*(values.tolist() for values in pair), strict=True), 1):
                table.append({"loss": loss, "quantity": panel, "rank": rank, "predicted": predicted, "sgd": found})
    return table


if __name__ == "__main__":
    draw.main()
