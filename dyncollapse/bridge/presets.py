"""From given settings to a complete recipe: presets, TOML files, and what is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyncollapse.bridge.recipe import WIDTHS, Recipe, head_of
from dyncollapse.runtime.records import check_value, settings_of
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.runtime.settings_file import by_keys, read_toml

# Settings that differ from the defaults. SGD at 0.06 per 256 pairs is from MoCo's CIFAR-10 demonstration.
SETTINGS_OF_PRESETS: dict[str, dict[str, Any]] = {
    "paper-imagenet": {},
    "cifar10": {
        "arch": "resnet18",
        "stem": "cifar",
        "augment": "cifar",
        "image_size": 32,
        "pipeline": "memory",
        "epochs": 200,
        "batch_size": 512,
        "optimiser": "sgd",
        "lr": 0.12,
        "weight_decay": 5e-4,
        "workers": 2,
        "monitor_every": 490,
        "checkpoint_every": 970,
    },
    "digits": {
        "data": "digits",
        "arch": "resnet10-narrow",
        "stem": "cifar",
        "augment": "digits",
        "image_size": 8,
        "out_dim": 64,
        "pipeline": "memory",
        "epochs": 60,
        "batch_size": 128,
        "optimiser": "sgd",
        "lr": 0.3,
        "weight_decay": 1e-4,
        "precision": "float32",
        "threads": 1,  # the same numbers whatever the number of cores
        "device": "cpu",
        "workers": 0,
        "log_every": 20,
        "monitor_every": 200,
        "checkpoint_every": 200,
    },
}

# Presets of data that have a name, where none is given.
OWN_PRESETS = {"digits": "digits", "cifar10": "cifar10"}


def resolve(given: Mapping[str, Any], config: Path | None = None) -> Recipe:
    """Make a recipe from a preset, a TOML file and given settings; each overrides the one before.

    Args:
        given: Settings by name; None counts as not given. Without a preset, that of `data` is used: digits for
            "digits", cifar10 for "cifar10", else paper-imagenet.
        config: A TOML file with settings of the same names.

    Returns:
        The recipe.

    Raises:
        SettingError: If a name is unknown, a value has a wrong type or is out of range, or values contradict each
            other. One line; for a value from the file it names the file and the key.

    Examples:
        >>> recipe = resolve({"data": "digits", "method": "directclr"})
        >>> recipe.preset, recipe.head, recipe.optimiser
        ('digits', 'low-rank-diagonal', 'sgd')
        >>> _ = Path("run.toml").write_text("lr = 0.1")
        >>> resolve({"data": "digits"}, Path("run.toml")).lr, resolve({"data": "digits", "lr": 0.2}).lr
        (0.1, 0.2)
    """
    known = settings_of(Recipe)
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := given.keys() - known.keys():
        raise SettingError(f"there is no setting {quoted(min(unknown, key=str))}; settings are {', '.join(known)}")
    given = {name: check_value(Recipe, name, value) for name, value in given.items()}
    written = {} if config is None else read_toml(Recipe, config)
    own = {name: value for name, (_, value) in written.items()} | given
    preset = own.get("preset", OWN_PRESETS.get(str(own.get("data")), "paper-imagenet"))
    settings = {"preset": preset, **SETTINGS_OF_PRESETS[preset], **own}
    head = head_of(settings.get("method", "simclr"), settings.get("projector"))
    # A preset's widths apply only to projectors that have them.
    settings |= {name: None for name, heads in WIDTHS.items() if head not in heads and name not in own}
    try:
        recipe = Recipe(**settings)
        if recipe.optimiser == "adamw" and "momentum" in own:
            raise SettingError("`momentum` is for lars and sgd, not for adamw; drop it")
    except SettingError as error:
        if config is None:
            raise
        keys = {name: key for name, (key, _) in written.items() if name not in given}
        raise by_keys(error, config, keys) from None
    return recipe
