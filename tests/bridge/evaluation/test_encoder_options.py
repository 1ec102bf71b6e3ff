"""One record says how an encoder is read from a file, and what else its commands take."""

import inspect
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers.hostile_values import VALUES, refusal, shown_safely

from dyncollapse.bridge.evaluation.load import load_encoder
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.models.foreign_checkpoints import Hints
from dyncollapse.bridge.models.foreign_layers import ACTIVATIONS, LAST
from dyncollapse.commands.bridge import bridge
from dyncollapse.commands.options import record_options
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import SettingError

NAMES = settings_of(EncoderOptions)
FILE = Path("z.pth")


def test_names_and_ranges_are_those_of_the_reader():
    assert NAMES["projector_activation"].choices == tuple(ACTIVATIONS)
    assert NAMES["projector_last"].choices == tuple(LAST)
    sides = NAMES["image_size"].low, NAMES["image_size"].high
    assert sides == (4, 4096)
    assert [Hints(image_size=side).image_size for side in sides] == [4, 4096]
    for side in (3, 4097):
        with pytest.raises(ValueError, match=f"image_size is {side}; give 4 to 4096"):
            Hints(image_size=side)
    spelled = {"path": "checkpoint", "renames": "prefix_map", "trust": "trust_checkpoint"}
    parameters = {spelled.get(name, name) for name in inspect.signature(load_encoder).parameters}
    assert parameters <= NAMES.keys()


@pytest.mark.parametrize("name", ["embed", "diagnose", "probe"])
def test_commands_have_an_option_for_each(name):
    known = {one.name for one in bridge.get_command(click.Context(bridge), name).params}
    assert NAMES.keys() <= known


def test_beginnings_of_names_are_repeated_options():
    made = []

    @click.command()
    @record_options(EncoderOptions)
    def command(options):
        made.append(options)

    given = ["--checkpoint", "z.pth"]
    assert CliRunner().invoke(command, [*given, "--prefix-map", "a=b", "--prefix-map", "c=", "--strict"]).exit_code == 0
    assert CliRunner().invoke(command, given).exit_code == 0
    assert made[0].renames == {"a": "b", "c": ""}
    assert made == [EncoderOptions(FILE, prefix_map=("a=b", "c="), strict=True), EncoderOptions(FILE)]
    assert json.loads(json.dumps(made[0].as_dict())) == made[0].as_dict()
    missing = CliRunner().invoke(command, [])
    assert (missing.exit_code, "Missing option '--checkpoint'" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"checkpoint": "z.pth"}, "checkpoint is 'z.pth'; it takes a path"),
        ({"prefix_map": ["module"]}, "prefix_map is 'module'; write OLD=NEW"),
        ({"stem": "small"}, "stem is 'small'; choose one of imagenet, cifar, cifar-padding-2, cifar-stride-2"),
        ({"projector_last": "softmax"}, "projector_last is 'softmax'; choose one of normalise, relu, gelu"),
        ({"image_size": 3}, "image_size is 3; it must be between 4 and 4096 pixels"),
        ({"d0": 0}, "d0 is 0; it must be between 1 and 1000000 dimensions"),
        ({"device": "gpu"}, "device is 'gpu'; write cpu, cuda or cuda:N"),
        ({"batch_size": 0}, "batch_size is 0; it must be between 1 and 1e9 images"),
    ],
)
def test_what_is_out_of_range_is_told_in_one_line(given, words):
    with pytest.raises(SettingError, match=words):
        EncoderOptions(**{"checkpoint": FILE, **given})


def test_two_replacements_of_one_beginning_are_refused():
    options = EncoderOptions(FILE, prefix_map=("a=b", "c=d", "a=c"))
    with pytest.raises(SettingError, match=r"^prefix_map a is given twice; give each beginning once$"):
        _ = options.renames


def test_a_checkpoint_is_named():
    with pytest.raises(SettingError, match=r"^checkpoint is not given$"):
        EncoderOptions()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_values_are_refused_in_one_short_line(name):
    told = [refusal(SettingError, EncoderOptions, **{"checkpoint": FILE, name: value}) for value in VALUES.values()]
    assert any(told)
    for line in filter(None, told):
        assert line.startswith(f"{name} is ")
        assert len(line) < 400
        assert shown_safely(line)


def test_an_argument_takes_the_place_of_an_option():
    made = []

    @click.command()
    @record_options(EncoderOptions, bare={"checkpoint": "encoder"})
    def command(options):
        made.append(options)

    for given in (["timm/x", "--data", "d"], ["--data", "d", "--checkpoint", "timm/x"]):
        assert CliRunner().invoke(command, given).exit_code == 0
    assert made == [EncoderOptions(Path("timm/x"), data="d")] * 2
    for given, words in (([], "Missing option '--checkpoint'"), (["a", "--checkpoint", "b"], "give one encoder")):
        refused = CliRunner().invoke(command, given)
        assert (refused.exit_code, words in refused.stderr) == (2, True)
