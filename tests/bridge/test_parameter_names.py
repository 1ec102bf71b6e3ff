"""Messages name parameters for those who call functions, and options for those who type commands."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import write_images
from helpers.programs import refused
from torch import nn

import dyncollapse.bridge
from dyncollapse.bridge import Skipped, embed, load_encoder, open_data
from dyncollapse.bridge.models.backbones import build_backbone
from dyncollapse.commands.main import main
from dyncollapse.runtime.settings import SettingError

ARCH = "resnet10-narrow"
BACKBONE = {f"backbone.{name}": value for name, value in build_backbone(ARCH, "cifar", 3).state_dict().items()}


def linear(path, inputs=128, outputs=5):
    return {f"{path}.{name}": value for name, value in nn.Linear(inputs, outputs).state_dict().items()}


def mlp(path="projector"):
    return linear(f"{path}.0", 128, 7) | linear(f"{path}.2", 7)


class Custom:
    """What torch does not load from an untrusted file."""


def command(*arguments):
    return refused(CliRunner().invoke(main, ["bridge", "embed", *map(str, arguments)]))


# What the file holds, what a caller gives, what is given as options, and the line, whose {} are parameters or options.
LINES = {
    "unknown model": ({}, {"arch": "resnet5"}, ["--arch", "resnet5"], "{arch} is 'resnet5', which timm does not have"),
    "first layers": ({}, {"stem": "tiny"}, ["--stem", "tiny"], "{stem} is 'tiny'; choose one of imagenet, cifar"),
    "views": ({}, {"augment": "none"}, ["--augment", "none"], "{augment} is 'none'; choose one of imagenet"),
    "patches": (
        {},
        {"arch": "vit_tiny_patch16_224", "stem": "cifar"},
        ["--arch", "vit_tiny_patch16_224", "--stem", "cifar"],
        "{stem} cifar replaces a ResNet's conv1 and maxpool",
    ),
    "names": (
        {},
        {"arch": ARCH, "renames": {"decoder.": ""}},
        ["--arch", ARCH, "--prefix-map", "decoder.="],
        "{renames} decoder. begins no name in the file",
    ),
    "other model": (
        {},
        {"arch": "resnet18"},
        ["--arch", "resnet18"],
        "; give {arch}, {stem} or {renames} OLD=NEW that fit all",
    ),
    "width": ({}, {"arch": ARCH, "d0": 999}, ["--arch", ARCH, "--d0", 999], "{d0} is 999, but resnet10-narrow gives"),
    "both projectors": (
        mlp(),
        {"arch": ARCH, "d0": 9, "projector_last": "relu"},
        ["--arch", ARCH, "--d0", 9, "--projector-last", "relu"],
        "{d0} makes the embedding a part of the representation; drop it, or the options {projector_}...",
    ),
    "activation": (
        mlp(),
        {"arch": ARCH, "projector_activation": "swish"},
        ["--arch", ARCH, "--projector-activation", "swish"],
        "{projector_activation} is 'swish'; choose one of relu",
    ),
    "no projector": (
        {},
        {"arch": ARCH, "projector_last": "relu"},
        ["--arch", ARCH, "--projector-last", "relu"],
        "{projector_last} is given, but no projector was recognised; name it by {projector_prefix}",
    ),
    "prefix": (
        mlp(),
        {"arch": ARCH, "projector_prefix": "predictor"},
        ["--arch", ARCH, "--projector-prefix", "predictor"],
        "{projector_prefix} is predictor, which begins no name beside the backbone",
    ),
    "code": ({"config": Custom()}, {"arch": ARCH}, ["--arch", ARCH], "to run code on this machine, add {trust}"),
}
OTHERS = {"renames": "--prefix-map", "trust": "--trust-checkpoint"}


def as_options(line):
    return re.sub(r"\{(\w+)\}", lambda name: OTHERS.get(name[1], "--" + name[1].replace("_", "-")), line)


@pytest.mark.parametrize("case", LINES)
def test_line_names_parameters_in_python_and_options_on_the_command_line(case, tmp_path):
    more, given, options, line = LINES[case]
    torch.save({**BACKBONE, **more}, tmp_path / "other.pt")
    with pytest.raises(SettingError) as error:
        load_encoder(tmp_path / "other.pt", **given)
    assert line.replace("{", "").replace("}", "") in str(error.value)
    assert "--" not in str(error.value)
    assert "`" not in str(error.value)
    there = ["--checkpoint", tmp_path / "other.pt", "--data", "digits", "--out", tmp_path / "z"]
    assert as_options(line) in command(*there, *options)


def test_assumptions_name_parameters_in_python_and_options_on_the_command_line(tmp_path):
    torch.save({**BACKBONE, **mlp(), **linear("fc", outputs=9)}, tmp_path / "other.pt")
    loaded = load_encoder(tmp_path / "other.pt", arch=ARCH)
    sentences = " ".join((*loaded.assumptions, *loaded.left_out))
    for name in ("stem", "image_size", "augment", "projector_activation", "projector_last", "projector_prefix"):
        assert f"`{name}`" in sentences
    assert "--" not in sentences
    photos = write_images(tmp_path / "photos", 3)
    there = ["--checkpoint", tmp_path / "other.pt", "--arch", ARCH, "--data", photos, "--out", tmp_path / "z"]
    result = CliRunner().invoke(main, ["bridge", "embed", *map(str, there), "--json"])
    assert result.exit_code == 0, result.stderr
    expected = re.sub(r"`(\w+)`", lambda name: "--" + name[1].replace("_", "-"), sentences)
    assert " ".join(json.loads(result.stdout)["assumptions"]) == expected
    assert " ".join(json.loads((tmp_path / "z" / "embed.json").read_text())["assumptions"]) == expected
    assert all(f"assumed: {text}" in result.stderr for text in json.loads(result.stdout)["assumptions"])


def test_digits_are_refused_for_an_encoder_of_colour_images(tmp_path):
    torch.save(BACKBONE, tmp_path / "other.pt")
    line = command("--checkpoint", tmp_path / "other.pt", "--arch", ARCH, "--data", "digits", "--out", tmp_path / "z")
    words = "and the encoder takes 3; give a folder of images, which are read in colour"
    assert f"--data has images of 1 channel(s), {words}" in line
    encoder = load_encoder(tmp_path / "other.pt", arch=ARCH)
    with pytest.raises(SettingError, match=f"data has images of 1 channel.*{words}"):
        embed(encoder, open_data("digits").train, tmp_path / "z", spaces=["representation"])


def test_options_that_a_message_gives_take_the_projector(tmp_path):
    others = {"dense_in": nn.Linear(128, 7), "norm": nn.BatchNorm1d(7), "dense_out": nn.Linear(7, 5)}
    state = nn.ModuleDict({"ssl_head": nn.ModuleDict(others)}).state_dict()
    torch.save({"model": {**BACKBONE, **state}}, tmp_path / "other.pt")
    photos = write_images(tmp_path / "photos", 3)
    there = ["--checkpoint", tmp_path / "other.pt", "--arch", ARCH, "--data", photos, "--out", tmp_path / "z"]
    line = command(*there)
    options = line.split("If it is the projector, give ")[1].strip().removesuffix(".").split()
    assert options[0] == "--prefix-map"
    result = CliRunner().invoke(main, ["bridge", "embed", *map(str, there), *options, "--json"])
    assert result.exit_code == 0, result.stderr
    assert "projector model.ssl_head: Linear 128-7, BatchNorm1d, relu, Linear 7-5" in result.stderr + result.stdout


def test_encoder_without_projector_says_what_to_give(tmp_path):
    torch.save(BACKBONE, tmp_path / "other.pt")
    loaded = load_encoder(tmp_path / "other.pt", arch=ARCH)
    with pytest.raises(SettingError, match="use spaces representation, or give d0"):
        embed(loaded, open_data("digits").test, tmp_path)
    photos = write_images(tmp_path / "photos", 3)
    there = ["--checkpoint", tmp_path / "other.pt", "--arch", ARCH, "--data", photos, "--out", tmp_path / "z"]
    assert "use --space representation, or give --d0." in command(*there)


def test_backticks_of_a_file_are_no_parameters(tmp_path):
    torch.save({**BACKBONE, **linear("`arch`.0", outputs=3)}, tmp_path / "`stem`.pt")
    with pytest.raises(SettingError, match=r"'stem'\.pt") as error:
        load_encoder(tmp_path / "`stem`.pt", arch="resnet18")
    assert "--stem" not in error.value.as_options().split(": ")[0]


def test_images_are_refused_by_the_setting_that_names_them(tmp_path):
    with pytest.raises(
        SettingError,
        match=r"^data nowhere is no folder; give a folder of images, of parquet files or of \.tar shards; or",
    ) as error:
        open_data("nowhere")
    assert error.value.as_options().startswith("--data nowhere is no folder")
    images = open_data(str(write_images(tmp_path / "photos", 3))).train
    with pytest.raises(SettingError, match="leave out strict to skip such images") as error:
        Skipped(images, strict=True).add([(0, "`strict`.jpg is damaged")])
    assert (
        error.value.as_options()
        == "'strict'.jpg is damaged; repair or remove it, or leave out --strict to skip such images"
    )


# Text that is a command line, and not a message on parameters.
COMMANDS = {
    "real_scale/resumption.py",  # runs commands
    "real_scale/report.py",  # reports to who typed the check's command
    "real_scale/cifar.py",
    "real_scale/throughput.py",
    "evaluation/paper_tables.py",  # names the next command
    "training/distributed.py",  # torchrun's option
}


def test_the_library_has_no_words_of_the_command_line():
    root = Path(dyncollapse.bridge.__file__).parent
    paths = [path for path in root.rglob("*.py") if str(path.relative_to(root)) not in COMMANDS]
    assert len(paths) > 30
    for path in paths:
        texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        flags = [text for text in texts if isinstance(text, str) and re.search(r"(^|\W)--[a-z]", text)]
        assert flags == [], path
