"""What the check trains within a budget of time: encoder, rows, seeds, epochs and number of images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypedDict

from msgspec import Meta

from dyncollapse.bridge.evaluation.check_rows import SHARES, SHORT_HEADS, sizes_of_shares, swept_recipes, table_recipes
from dyncollapse.bridge.recipe import PROJECTORS, Recipe
from dyncollapse.runtime.process import cores
from dyncollapse.runtime.progress import duration
from dyncollapse.runtime.schemas import Count, Name, Number, Size
from dyncollapse.runtime.settings import SettingError

# Rules of thumb. With fewer epochs SimCLR has hardly begun, and beyond MOST_EPOCHS CIFAR-10 gains little; below
# LEAST_STEPS steps an epoch, all images are kept before epochs are.
LEAST_EPOCHS, MORE_EPOCHS, MOST_EPOCHS, LEAST_STEPS = 20, 50, 200, 10
# A batch has at least four steps in an epoch and at least 8 pairs, so a check has at least 32 images.
BATCH, LEAST_BATCH, STEPS_OF_FEW = 256, 8, 4
LEAST_IMAGES = LEAST_BATCH * STEPS_OF_FEW
# SGD's rate of the preset cifar10 for a batch of 256, proportional to the batch (Goyal et al. 2017, arXiv:1706.02677).
RATE = 0.12
# Most training images that are diagnosed and probed, and most test images: their standard error is half a percent. With
# few training images, 2000 are tested: one percent.
PROBED, LEAST_TESTED = 10_000, 2_000
# Seconds of a run besides its steps: start, spectra of both spaces, and per probed image the logistic regression. Then
# the share of the time that is left for what a measurement of seconds cannot know. Rules of thumb.
BESIDES, PER_PROBED, ROOM = 8.0, 2e-3, 1.15
# Embedding in float32 takes at most as long as training on a third as many pairs in bfloat16: forwards only, one view.
EMBEDS = 3.0
SAVED_EVERY = 60.0  # seconds between checkpoints, which a kill may lose
# Encoders to choose from, the largest first: name, stem and side of its views (None: that of the images). For images
# above 64 pixels the 7x7 stem reduces the side fourfold at once.
SMALL = (
    ("resnet18", "cifar-stride-2", None),
    ("resnet10", "cifar-stride-2", None),
    ("resnet10-half-512", "cifar-stride-2", None),
)
LARGE = (("resnet18", "imagenet", 128), ("resnet18", "imagenet", 64), ("resnet10-half-512", "imagenet", 64))
LARGE_SIDE = 64
LEAST_SIDE = 16  # pixels: the encoders halve the side four times


class BudgetTooSmall(SettingError):
    """Raised if the budget does not suffice for one epoch of each row; the message says which would."""


@dataclass(frozen=True)
class Encoder:
    """A candidate: backbone, stem and side of the views."""

    arch: str
    stem: str
    image_size: int

    @property
    def title(self) -> str:
        """The encoder in words."""
        return f"{self.arch}, stem {self.stem}, {self.image_size} x {self.image_size}"


@dataclass(frozen=True)
class Supply:
    """The images: how many there are and fit into memory, the side of the views, seconds to read one on all cores."""

    data: str
    train: int
    test: int
    side: int
    reading: float = 0.0
    room: int | None = None

    @property
    def usable(self) -> int:
        """Training images that fit into memory, but at least as many as a check needs."""
        return self.train if self.room is None else min(self.train, max(self.room, LEAST_IMAGES))


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; None leaves the choice to the check."""

    budget: float
    seeds: int | None = None
    epochs: int | None = None
    short: bool = False
    workers: int | None = None


Positive = Annotated[float, Meta(gt=0, le=1e12)]
Share = Annotated[float, Meta(gt=0, le=1)]
MOST_SEEDS = 100


class Plan(TypedDict):
    """What is trained, as check.json keeps it.

    `rate` is pairs per second of all cores, `row_seconds` the time of one run. `swept` has further sizes of
    DirectCLR's sub-vector, as shares of the representation; each has one seed.
    """

    arch: Name
    stem: Name
    image_size: Size
    precision: Name
    rows: Annotated[list[Name], Meta(min_length=1, max_length=len(PROJECTORS) + 1)]
    swept: Annotated[list[Share], Meta(max_length=len(SHARES))]
    seeds: Annotated[int, Meta(ge=1, le=MOST_SEEDS)]
    epochs: Size
    images: Annotated[int, Meta(ge=1, le=2**53)]
    batch_size: Size
    rate: Positive
    workers: Size
    row_seconds: Positive
    seconds: Positive


class Kept(TypedDict):
    """check.json: what was asked for, what was chosen, and what images there were."""

    asked: "Asked"
    plan: Plan
    train: Count
    test: Count


class Asked(TypedDict):
    """The options that a check keeps from its beginning to its end."""

    budget: Number
    seeds: int | None
    epochs: int | None
    short: bool


def encoders(side: int) -> list[Encoder]:
    """Candidate encoders for images whose shorter side has so many pixels, the largest first."""
    chosen = SMALL if side <= LARGE_SIDE else LARGE
    return [Encoder(arch, stem, min(side, most or side)) for arch, stem, most in chosen]


def tested_images(train: int, test: int) -> int:
    """Test images that are used beside so many training images: as many, within bounds.

    Args:
        train: Training images that are used.
        test: Test images that there are.

    Returns:
        The number of test images.

    Examples:
        >>> tested_images(2560, 10_000), tested_images(500, 10_000), tested_images(50_000, 60_000)
        (2560, 2000, 10000)
    """
    return min(test, PROBED, max(LEAST_TESTED, train))


def batch_for(images: int) -> int:
    """Pairs in a batch: 256, or the largest power of two with four steps in an epoch.

    Args:
        images: Training images.

    Returns:
        The number of pairs.

    Examples:
        >>> batch_for(50_000), batch_for(300), batch_for(32)
        (256, 64, 8)
    """
    return min(BATCH, 2 ** int(math.log2(max(LEAST_BATCH, images / STEPS_OF_FEW))))


def choose(supply: Supply, wishes: Wishes, rate: Callable[[Encoder], float], spent: Callable[[], float]) -> Plan:
    """Choose the largest encoder for which one seed of Table 1's rows has 20 epochs, then what else fits.

    Encoders are measured from the largest on, until one fits. With what is left of the budget come 3 seeds and 50
    epochs, then all rows, then other sizes of DirectCLR's sub-vector, then more epochs, up to 200. If no encoder fits,
    the fastest gets fewer images, then fewer epochs.

    Args:
        supply: The images.
        wishes: The budget, and what the user has fixed.
        rate: Measures the pairs per second of an encoder on all cores.
        spent: Seconds of the budget that are gone.

    Returns:
        The choice, without its precision.

    Raises:
        BudgetTooSmall: If one epoch of each row does not fit.

    Examples:
        >>> supply = Supply("photos", train=50_000, test=10_000, side=32)
        >>> fast = {"resnet18": 240.0, "resnet10": 480.0, "resnet10-half-512": 1200.0}
        >>> plan = choose(supply, Wishes(budget=4 * 3600, workers=2), lambda one: fast[one.arch], lambda: 30.0)
        >>> plan["arch"], plan["images"], plan["epochs"] >= 20, plan["seconds"] < 4 * 3600
        ('resnet10', 50000, True, True)
    """
    measured: list[tuple[Encoder, float]] = []
    designs = list(_designs(wishes))
    for encoder in encoders(supply.side):
        measured.append((encoder, rate(encoder)))
        for design in designs:
            plan = _plan(*measured[-1], supply, wishes, design)
            if plan["seconds"] + spent() <= wishes.budget:
                return _filled(plan, supply, wishes, spent)
    fastest = max(measured, key=lambda one: one[1])
    return _shrunk(_plan(*fastest, supply, wishes, designs[-1]), supply, wishes, spent)


def workers_for(wishes: Wishes) -> int:
    """Runs at a time of the smallest design, with which encoders are measured."""
    return min(wishes.workers or cores(), _designs(wishes)[-1].runs)


class _Design(NamedTuple):
    rows: list[str]
    seeds: int
    epochs: int  # at least
    swept: Sequence[float] = ()

    @property
    def runs(self) -> int:
        return len(self.rows) * self.seeds + len(self.swept)


def _designs(wishes: Wishes) -> list[_Design]:
    """Designs that the user's wishes allow, the richest first."""
    every, four = [*PROJECTORS, "linear-matched"], list(SHORT_HEADS)
    seeds, epochs = wishes.seeds or 3, wishes.epochs or MORE_EPOCHS
    designs = [
        _Design(every, seeds, epochs, SHARES),
        _Design(every, seeds, epochs),
        _Design(four, seeds, epochs),
        _Design(four, wishes.seeds or 1, wishes.epochs or LEAST_EPOCHS),
    ]
    return [one for one in designs if not wishes.short or one.rows == four]


def _plan(encoder: Encoder, rate: float, supply: Supply, wishes: Wishes, design: _Design) -> Plan:
    plan = Plan(
        arch=encoder.arch,
        stem=encoder.stem,
        image_size=encoder.image_size,
        precision="",
        rows=design.rows,
        swept=[*design.swept],
        seeds=design.seeds,
        epochs=design.epochs,
        images=supply.usable,
        batch_size=batch_for(supply.usable),
        rate=rate,
        workers=min(wishes.workers or cores(), design.runs),
        row_seconds=0.0,
        seconds=0.0,
    )
    return _timed(plan, supply)


def _timed(plan: Plan, supply: Supply) -> Plan:
    """The plan with the time of a row and of all."""
    each = plan["rate"] / plan["workers"]
    probed, tested = min(plan["images"], PROBED), tested_images(plan["images"], supply.test)
    pairs = plan["epochs"] * (plan["images"] // plan["batch_size"]) * plan["batch_size"]
    embedded = (3 * probed + tested) / EMBEDS  # two views to diagnose, and plain images to probe
    row = BESIDES + PER_PROBED * probed + (pairs + embedded) / each
    rounds = math.ceil(runs_of(plan) / plan["workers"])
    reading = supply.reading * (plan["images"] + tested)
    return Plan(**{**plan, "row_seconds": row, "seconds": ROOM * rounds * row + reading})


def _filled(plan: Plan, supply: Supply, wishes: Wishes, spent: Callable[[], float]) -> Plan:
    """The plan with as many epochs as fit, if the user fixes none."""
    left = wishes.budget - spent()
    most = plan["epochs"] if wishes.epochs else MOST_EPOCHS
    more = (_timed(Plan(**{**plan, "epochs": epochs}), supply) for epochs in range(most, plan["epochs"], -1))
    return next((longer for longer in more if longer["seconds"] <= left), plan)


def _shrunk(plan: Plan, supply: Supply, wishes: Wishes, spent: Callable[[], float]) -> Plan:
    """The plan with as many images as fit, then with as many epochs."""
    left, batch = wishes.budget - spent(), plan["batch_size"]
    floor = min(plan["images"], LEAST_STEPS * batch)
    sizes = [*range(plan["images"] // batch * batch, floor, -batch), floor]
    smaller = [(images, plan["epochs"]) for images in sizes]
    if wishes.epochs is None:
        smaller += [(floor, epochs) for epochs in range(plan["epochs"] - 1, 0, -1)]
    for images, epochs in smaller:
        changed = _timed(Plan(**{**plan, "images": images, "epochs": epochs}), supply)
        if changed["seconds"] <= left:
            return changed
    needed = math.ceil((changed["seconds"] + spent()) / 60 * 1.1)  # a tenth for a rate that varies
    raise BudgetTooSmall(
        f"`budget` {duration(wishes.budget)} is too short: {runs_of(plan)} runs of {changed['epochs']} "
        f"epoch{'s' * (changed['epochs'] > 1)} on {changed['images']} images take about "
        f"{duration(changed['seconds'])} here; give `budget` {needed}m"
    )


def plan_recipes(plan: Plan, data: str) -> dict[str, Recipe]:
    """The runs of a plan.

    Args:
        plan: From `choose`, with its precision.
        data: The images that the recipes name.

    Returns:
        Settings by the name of the run's folder.

    Raises:
        SettingError: For a plan that no recipe allows.
    """
    each, batch = plan["rate"] / plan["workers"], plan["batch_size"]
    common: dict[str, Any] = {
        **{name: plan[name] for name in ("arch", "stem", "image_size", "precision", "epochs", "batch_size")},
        **{"preset": "cifar10", "data": data, "device": "cpu", "workers": 0, "lr": RATE * batch / BATCH},
        **{"monitor_every": 0, "log_every": 10, "tensorboard": False, "keep": 1},
        "checkpoint_every": max(1, round(SAVED_EVERY * each / batch)),
    }
    heads = [head for head in plan["rows"] if head != "linear-matched"]
    recipes: dict[str, Recipe] = {}
    for seed in range(plan["seeds"]):
        recipes |= {f"{name}-seed{seed}": one for name, one in table_recipes(common | {"seed": seed}, heads).items()}
    return recipes | swept_recipes(common, sizes_of_shares(common, plan["swept"]))


def runs_of(plan: Plan) -> int:
    """The number of runs of a plan."""
    return len(plan["rows"]) * plan["seeds"] + len(plan["swept"])


def pairs_a_second(rate: float) -> str:
    """A rate in words, to three digits below 1000."""
    return f"{rate:.0f} pairs/s" if rate >= 1000 else f"{rate:.3g} pairs/s"


def plan_sentences(plan: Plan, supply: Supply, budget: float) -> list[str]:
    """What is trained and what it costs, in two lines."""
    batch, images = plan["batch_size"], plan["images"]
    some = f"{images} of {supply.train} images" if images < supply.train else f"{images} images"
    seeds, epochs = (f"{plan[name]} {name[:-1] if plan[name] == 1 else name}" for name in ("seeds", "epochs"))
    swept = f" and {len(plan['swept'])} other sizes of DirectCLR's sub-vector" if plan["swept"] else ""
    encoder = Encoder(plan["arch"], plan["stem"], plan["image_size"])
    return [
        f"chosen: {encoder.title}, {plan['precision']}: {pairs_a_second(plan['rate'])} on all cores; "
        f"{len(plan['rows'])} rows x {seeds}{swept}, {epochs} of {some}, batch {batch}",
        f"a row takes about {duration(plan['row_seconds'])}, {plan['workers']} at a time; all about "
        f"{duration(plan['seconds'])}, with a budget of {duration(budget)}",
    ]
