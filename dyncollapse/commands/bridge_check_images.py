"""The check on the user's own images: choose what fits into the budget, say so, and keep the choice."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.data.splits import Data
from dyncollapse.bridge.evaluation.check_images import held_images, open_images, pairs_per_second
from dyncollapse.bridge.evaluation.check_plan import (
    PROBED,
    Encoder,
    Kept,
    Plan,
    Supply,
    Wishes,
    choose,
    pairs_a_second,
    plan_recipes,
    plan_sentences,
    workers_for,
)
from dyncollapse.bridge.evaluation.check_runs import check_begun
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.optimisation import default_precision
from dyncollapse.commands.bridge_shared import note_in_options
from dyncollapse.commands.shared import note, say
from dyncollapse.runtime.files import read_json, unmarked, write_json
from dyncollapse.runtime.schemas import checked
from dyncollapse.runtime.settings import SettingError

CHECK = "check.json"
BUDGET = 40 * 60.0  # seconds, where no budget is given: as long as one row may take at the scale of docs/results.md
# Most seconds of measuring an encoder, and the part of the budget that it may take. Rules of thumb.
MEASURED, PART = 3.0, 0.004


@dataclass(frozen=True, eq=False)
class OwnImages:
    """A check on images of the user, opened and looked at, before its runs are chosen."""

    data: Data
    supply: Supply
    sample: HeldImages
    wishes: Wishes
    started: float

    most = PROBED

    @staticmethod
    def goes_on(folder: Path) -> bool:
        """Whether a check that was interrupted can continue in a folder."""
        return (folder / CHECK).is_file()

    def runs(self, folder: Path) -> tuple[dict[str, Recipe], Data]:
        """The recipes of the check, as begun in the folder or chosen now, and its images in memory."""
        plan = self._begun(folder) if self.goes_on(folder) else self._chosen()
        recipes = plan_recipes(plan, self.supply.data)
        check_begun(folder, recipes)  # before the choice is kept: it may be refused
        write_json(folder / CHECK, self._kept(plan))
        for line in plan_sentences(plan, self.supply, self.wishes.budget):
            say(line, err=True)
        return recipes, held_images(self.data, plan["images"], plan["image_size"], note_in_options)

    def _kept(self, plan: Plan) -> dict[str, Any]:
        return {"asked": self._asked(), "plan": plan, "train": self.supply.train, "test": self.supply.test}

    def _asked(self) -> dict[str, Any]:
        return {name: getattr(self.wishes, name) for name in ("budget", "seeds", "epochs", "short")}

    def _chosen(self) -> Plan:
        """Measure encoders and choose, within the budget."""
        workers = workers_for(self.wishes)
        seconds = min(MEASURED, PART * self.wishes.budget)

        def rate(encoder: Encoder) -> float:
            measured = pairs_per_second(encoder, self.sample, workers, seconds)
            note(f"measured: {encoder.title}: {pairs_a_second(measured)} with {workers} at a time")
            return measured

        plan = choose(self.supply, self.wishes, rate, lambda: time.monotonic() - self.started)
        return Plan(**{**plan, "precision": default_precision("cpu")})

    def _begun(self, folder: Path) -> Plan:
        """The choice that a check began with. Raises ValueError if it was for other options or images."""
        shown = unmarked(str(folder / CHECK))
        try:
            kept = checked(read_json(folder / CHECK), Kept)
        except ValueError as error:
            raise ValueError(f"{shown} cannot be read ({error}); name another folder") from None
        for name, value in self._asked().items():
            if (before := dict(kept["asked"])[name]) != value:
                now, then = (partial(_in_words, name)(one) for one in (value, before))
                raise SettingError(
                    f"`{name}` is {now}, but the check in {unmarked(str(folder))} began with {then}; give that, or "
                    "name another folder"
                )
        for split, count in (("training", self.supply.train), ("test", self.supply.test)):
            if (before := kept["train"] if split == "training" else kept["test"]) != count:
                raise SettingError(
                    f"`data` has {count} {split} images, but the check in {unmarked(str(folder))} began with "
                    f"{before}; name its images, or another folder"
                )
        return kept["plan"]


def _in_words(name: str, value: Any) -> str:
    """A value as the command line takes it."""
    if name == "budget":
        return f"{value:g}s"
    return "not given" if value in (None, False) else "given" if value is True else str(value)


def prepare(data: str, wishes: Wishes) -> OwnImages:
    """Open the images, and look at their number and size.

    Args:
        data: As `open_data` takes it.
        wishes: What the user asks for.

    Returns:
        The check.

    Raises:
        ValueError: If the check cannot use the images.
    """
    started = time.monotonic()
    opened, supply, sample = open_images(data, note_in_options)
    split = f"{supply.train} training and {supply.test} test images"
    note(f"{data}: {split} of {len(opened.classes)} classes, {supply.side} pixels on the shorter side")
    return OwnImages(opened, supply, sample, wishes, started)
