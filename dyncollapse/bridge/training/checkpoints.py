"""Checkpoints of a run: written whole or not at all, the newest few kept; a run resumes from the last one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from dyncollapse.bridge.models.backbones import Undrawn
from dyncollapse.bridge.models.encoders import Encoder, build_encoder, encoder_shapes
from dyncollapse.bridge.recipe import Recipe, recorded
from dyncollapse.formats.torch_files import read_pt
from dyncollapse.runtime.files import printable, remove_partial, write_whole, writing
from dyncollapse.runtime.untrusted import NoFile

FOLDER, FORMAT = "checkpoints", 1
NAMES = "step-*.pt"
STATES = {"model": dict, "optimiser": dict, "schedule": dict, "scaler": dict, "random": list}
MOST_LETTERS = 200  # letters of a message about a damaged file, which may repeat the file's content


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run.

    Attributes:
        step: Steps that were taken.
        recipe: The run's settings.
        channels: Channels of its images.
        states: State dicts of torch and timm: `model` and, to resume, `optimiser`, `schedule`, `scaler`, and `random`,
            the states of the random generators by process.
    """

    step: int
    recipe: Recipe
    channels: int
    states: dict[str, Any]

    def encoder(self) -> Encoder:
        """Build the encoder with its weights. Raises ValueError as `build_encoder`."""
        with Undrawn():
            encoder = build_encoder(self.recipe, self.channels)
        encoder.load_state_dict(self.states["model"])
        return encoder

    def save(self, folder: Path, keep: int) -> Path:
        """Write the checkpoint into a run's folder, then remove all but the newest.

        Args:
            folder: The run's folder.
            keep: Checkpoints to keep.

        Returns:
            The new file.

        Raises:
            CannotWrite: If it cannot be written; earlier checkpoints stay.
        """
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
    """The newest checkpoint in a run's folder. Raises ValueError if there is none."""
    paths = checkpoints(folder)
    if not paths:
        raise ValueError(f"{printable(str(folder))} has no {FOLDER}/{NAMES}; give a checkpoint, or the folder of a run")
    return paths[-1]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that `Checkpoint.save` wrote, without unpickling.

    Args:
        path: A file, one of `checkpoints`.

    Returns:
        The checkpoint; types of its states and shapes of its model have been checked.

    Raises:
        ValueError: For any other file. One line.
    """
    shown = printable(str(path))
    try:
        content = read_pt(path, mapped=False)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror})") from None
    except NoFile as error:
        raise ValueError(f"{shown} cannot be read: {error}") from None
    except Exception as error:  # a damaged zip or pickle can fail in any way
        raise ValueError(
            f"{shown} is damaged or not a checkpoint ({type(error).__name__}); take an earlier one"
        ) from None
    if not is_ours(content):
        raise ValueError(f"{shown} was not saved by dyncollapse bridge pretrain")
    return as_checkpoint(content, shown)


def as_checkpoint(content: dict[str, Any], shown: str) -> Checkpoint:
    """Check the content of a file that `is_ours` recognised.

    Args:
        content: What the file holds.
        shown: The file's name, for messages.

    Returns:
        The checkpoint.

    Raises:
        ValueError: If another version wrote it, if a part has another type, or if the model is not its recipe's. One
            line.
    """
    if content["format"] != FORMAT:
        version = content["format"] if isinstance(content["format"], int) else "of another kind"
        raise ValueError(f"{shown} has format {version}; this version reads {FORMAT}")
    states = {name: value for name, value in content.items() if name not in ("format", "step", "recipe", "channels")}
    wrong = [name for name, kind in STATES.items() if name in states and not isinstance(states[name], kind)]
    numbers = {name: content[name] for name in ("step", "channels")}
    wrong += [n for n, value in numbers.items() if type(value) is not int or not 0 <= value < 2**53]
    if wrong:
        raise ValueError(f"{shown} is damaged: its {', '.join(wrong)} cannot be used; take an earlier one")
    try:
        recipe = recorded(content["recipe"])
    except ValueError as error:
        raise ValueError(f"{shown} holds no settings of a run ({error})") from None
    try:
        _check_model(recipe, numbers["channels"], states["model"])
    except Exception as error:  # a model of other layers can fail in any way
        reason = printable(str(error))[:MOST_LETTERS] or type(error).__name__
        raise ValueError(f"{shown} is damaged: {reason}") from None
    return Checkpoint(numbers["step"], recipe, numbers["channels"], states)


def _check_model(recipe: Recipe, channels: int, model: dict[str, Any]) -> None:
    """Check that a model is its recipe's, from shapes alone, because a recipe can ask for any width."""
    if channels not in (1, 3):
        raise ValueError(f"it is for images of {channels} channels; 1 and 3 are read")
    expected = encoder_shapes(recipe, channels).state_dict()
    if odd := next((name for name in (*expected, *model) if name not in expected or name not in model), None):
        raise ValueError(f"its recipe and its weights do not both have {odd}")
    for name, tensor in expected.items():
        there = model[name]
        if not isinstance(there, Tensor) or (there.shape, there.dtype) != (tensor.shape, tensor.dtype):
            has = f"has shape {tuple(there.shape)}" if isinstance(there, Tensor) else "is no tensor"
            raise ValueError(f"{name} {has}, and its recipe says {tuple(tensor.shape)}, {tensor.dtype}")


def is_ours(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether a file's content has the keys that `Checkpoint.save` writes; `as_checkpoint` checks the values."""
    return isinstance(content, dict) and {"format", "step", "recipe", "channels", "model"} <= content.keys()
