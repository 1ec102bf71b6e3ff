"""Settings from TOML: errors name the file and its keys, and options keep their names."""

import re

import pytest

from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.settings_file import read_toml


@pytest.fixture
def write(tmp_path):
    def write(text, name="run.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_keys_are_read_with_hyphens_or_underscores(write):
    path = write('batch-size = 64\nlr = 1\ndata = "photos"\nlog_every = 7\n')
    assert read_toml(Recipe, path) == {
        "batch_size": ("batch-size", 64),
        "lr": ("lr", 1.0),
        "data": ("data", "photos"),
        "log_every": ("log_every", 7),
    }


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("batch-size = 1", {}, "batch-size is 1; it must be between 2 and 1e9 pairs"),
        ("batch_size = 1", {}, "batch_size is 1; it must be between 2 and 1e9 pairs"),
        ("lr = nan", {}, "lr is nan; it must be between"),
        ("log-every = true", {}, "log-every is True; it takes whole numbers"),
        ("d0 = 8", {}, "d0 is 8, but the projector mlp has none"),
        ("warmup-epochs = 5", {"epochs": 5}, "warmup-epochs is 5.0 of --epochs 5; it must be less"),
        ("momentum = 0.5", {"optimiser": "adamw"}, "momentum is for lars and sgd, not for adamw; drop it"),
        ("batch-size = 3\nbatch_size = 3", {}, " has batch_size twice, as batch-size and batch_size; keep one of them"),
        ("shape = 3", {}, " has 'shape'; settings are preset, data"),
        ("[run]\nlr = 3", {}, " has 'run'; this is a table; write its settings at the top level, without [run]"),
        ("batch__size = 3", {}, " has 'batch__size'; did you mean batch_size?"),
    ],
)
def test_what_a_file_says_wrongly_is_reported_by_its_keys(write, text, given, message):
    path = write(text)
    with pytest.raises(SettingError) as caught:
        resolve({"data": "digits", **given}, path)
    assert caught.value.as_options().startswith(f"--config {path}")
    assert message in caught.value.as_options()
    assert "\n" not in str(caught.value)


def test_what_an_option_says_wrongly_is_reported_by_the_option_alone(write):
    with pytest.raises(SettingError) as caught:
        resolve({"data": "digits", "warmup_epochs": 5.0}, write("epochs = 5\nlr = 0.1"))
    assert "--warmup-epochs is 5.0 of epochs 5" in caught.value.as_options()
    with pytest.raises(SettingError) as caught:
        resolve({"data": "digits", "epochs": 5, "warmup_epochs": 5.0}, write("lr = 0.1"))
    assert caught.value.as_options() == "--warmup-epochs is 5.0 of --epochs 5; it must be less"


def test_a_name_in_the_path_is_no_setting(write):
    path = write("lr = 0", name="`lr`.toml")
    with pytest.raises(SettingError, match=re.escape("'lr'.toml: lr is 0.0")) as caught:
        resolve({"data": "digits"}, path)
    assert "--lr" not in caught.value.as_options()
