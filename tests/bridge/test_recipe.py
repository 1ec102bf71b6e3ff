"""Settings of a run: presets, files, and what is refused."""

import re

import pytest

from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.recipe import ADDED_LATER, PRESETS, PROJECTORS, Recipe, recorded
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import SettingError, option


def test_defaults_are_the_papers():
    recipe = resolve({"data": "somewhere"})
    assert (recipe.preset, recipe.arch, recipe.epochs, recipe.batch_size) == ("paper-imagenet", "resnet50", 100, 4096)
    assert (recipe.optimiser, recipe.lr, recipe.weight_decay, recipe.warmup) == ("lars", 4.8, 1e-6, 10)
    assert (recipe.temperature, recipe.image_size, recipe.head) == (0.1, 224, "mlp")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_whole_and_what_is_given_changes_them(preset):
    recipe = resolve({"preset": preset, "data": "digits", "lr": 0.25, "projector": "none"})
    assert (recipe.preset, recipe.lr, recipe.head) == (preset, 0.25, "none")
    assert Recipe(**recipe.as_dict()) == recipe


def test_cifar10_names_its_preset():
    assert (resolve({"data": "cifar10"}).arch, resolve({"data": "cifar10", "preset": "paper-imagenet"}).arch) == (
        "resnet18",
        "resnet50",
    )


def test_digits_name_their_preset_and_directclr_its_projector():
    assert resolve({"data": "digits"}).preset == "digits"
    assert resolve({"data": "digits", "method": "directclr", "d0": 5}).head == "low-rank-diagonal"
    assert {resolve({"data": "digits", "projector": name}).head for name in PROJECTORS} == set(PROJECTORS)


def test_options_go_before_the_file_and_the_file_before_the_preset(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('preset = "cifar10"\ndata = "photos"\nlr = 1\nbatch-size = 64\ncompile = true\n')
    recipe = resolve({"batch_size": 32, "lr": None}, path)
    assert (recipe.arch, recipe.data, recipe.lr, recipe.batch_size) == ("resnet18", "photos", 1.0, 32)
    assert recipe.compile is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate = 1", "'learning_rate'"),
        ("lr = 'fast'", "lr is 'fast'; it takes numbers"),
        ("epochs = 1.5", "epochs is 1.5; it takes whole numbers"),
        ("strict = 1", "strict is 1; it takes True or False"),
        ("[pretrain]\nlr = 1.0", "'pretrain'"),
        ("lr = ", "is no TOML"),
    ],
)
def test_file_that_is_no_recipe_is_refused(tmp_path, text, words):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        resolve({"data": "digits"}, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        resolve({}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"data": ""}, "data is not given"),
        ({"preset": "paper"}, "preset is 'paper'"),
        ({"projector": "conv"}, "projector is 'conv'; choose one of mlp"),
        ({"method": "directclr", "projector": "mlp"}, "directclr fixes it"),
        ({"batch_size": 1}, "batch_size is 1; it must be between 2 and"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"epochs": 0, "warmup_epochs": 0.0}, "epochs is 0"),
        ({"epochs": 5, "warmup_epochs": 5.0}, "warmup_epochs is 5.0"),
        ({"lr": 0.0}, "lr is 0.0; it must be between 1e-15"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "momentum is 1.0; it must be at least 0 and below 1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"d0": 8}, "d0 is 8, but the projector mlp has none"),
        ({"out_dim": 8, "projector": "none"}, "out_dim is 8, but the projector none has none"),
        ({"hidden_dim": 8, "projector": "linear"}, "hidden_dim is 8, but the projector linear"),
        ({"d0": 0, "method": "directclr"}, "d0 is 0"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "between 0 and 2^63 - 1"),
        ({"optimiser": "lars", "weight_decay": 0.0}, "lars adapts no rate"),
        ({"optimiser": "adamw", "momentum": 0.5}, "momentum is for lars and sgd"),
    ],
)
def test_settings_that_contradict_are_refused(given, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        resolve({"data": "digits", **given})
    assert "\n" not in str(error.value)


def test_every_setting_explains_itself():
    assert all(setting.text.endswith(".") and setting.group for setting in settings_of(Recipe).values())
    assert option("batch_size") == "--batch-size"


def test_recipe_of_an_earlier_version_is_read():
    recipe = Recipe(data="digits", epochs=3)
    values = {name: value for name, value in recipe.as_dict().items() if name not in ADDED_LATER}
    assert recorded(values) == recipe
    del values["lr"]
    with pytest.raises(SettingError, match="the setting lr is missing"):
        recorded(values)
    with pytest.raises(SettingError, match="not a table"):
        recorded([1])
