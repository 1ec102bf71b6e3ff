"""Checkpoints of a run: whole or not there, the newest few, and what goes on from them exactly as if never stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dyncollapse.bridge.recipe import Recipe
from dyncollapse.files import printable, remove_partial, write_whole, writing

FOLDER, FORMAT = "checkpoints", 1
NAMES = "step-*.pt"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run needs to go on: after `step` steps, or just to be used: recipe, channels of its images and model."""

    step: int
    recipe: Recipe
    channels: int
    states: dict[str, Any]  # model; optimiser, schedule and scaler; random: per process, the generators' states

    def save(self, folder: Path, keep: int) -> Path:
        """Write into a run's folder, then remove all but the newest `keep`; CannotWrite leaves the earlier ones."""
        path = folder / FOLDER / f"step-{self.step:08d}.pt"
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
            remove_partial(path.parent)
        content = {
            "format": FORMAT,
            "step": self.step,
            "recipe": self.recipe.as_dict(),
            "channels": self.channels,
            **self.states,
        }
        write_whole(path, lambda file: torch.save(content, file))
        for old in checkpoints(folder)[:-keep]:
            old.unlink(missing_ok=True)
        return path


def checkpoints(folder: Path) -> Sequence[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted((folder / FOLDER).glob(NAMES))


def newest(folder: Path) -> Path:
    """The last checkpoint of a run. Raises ValueError where there is none."""
    found = checkpoints(folder)
    if not found:
        raise ValueError(f"{printable(str(folder))} has no {FOLDER}/{NAMES}; give a checkpoint, or the folder of a run")
    return found[-1]


def load_checkpoint(path: Path) -> Checkpoint:
    """One of ours, never unpickled. Raises ValueError, one line, for any other file."""
    shown = printable(str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged zip or pickle can fail in any way
        raise ValueError(
            f"{shown} is no checkpoint, or damaged ({type(error).__name__}); take an earlier one"
        ) from None
    if not is_ours(content):
        raise ValueError(f"{shown} is no checkpoint of dyncollapse bridge pretrain")
    return as_checkpoint(content, shown)


def as_checkpoint(content: dict[str, Any], shown: str) -> Checkpoint:
    """What `is_ours` found to be one. Raises ValueError for one that another version wrote."""
    if content["format"] != FORMAT:
        raise ValueError(f"{shown} has format {content['format']}; this version reads {FORMAT}")
    states = {name: value for name, value in content.items() if name not in ("format", "step", "recipe", "channels")}
    return Checkpoint(content["step"], Recipe(**content["recipe"]), content["channels"], states)


def is_ours(content: Any) -> bool:
    """Whether a loaded file is a checkpoint that `Checkpoint.save` wrote."""
    return isinstance(content, dict) and {"format", "step", "recipe", "channels", "model"} <= content.keys()
