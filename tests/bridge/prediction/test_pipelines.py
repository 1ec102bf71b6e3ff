"""Augmentation pipelines: their operations alone and left out, and files that describe them."""

from dataclasses import replace

import pytest
import torch
from helpers.bridge import ALONE, small

from dyncollapse.bridge import PredictOptions, pretrain
from dyncollapse.bridge.data.augmentations import PAIRS, batched_view, draw_views, pair_of
from dyncollapse.bridge.prediction.pipelines import NOTHING, OPERATIONS, open_pipeline
from dyncollapse.bridge.prediction.run import open_pairs
from dyncollapse.runtime.settings import SettingError


def changed(view, generator, channels=3, size=8):
    """Whether a view changes random images."""
    images = torch.randint(0, 256, (64, channels, size, size), generator=generator, dtype=torch.uint8)
    draws = draw_views(view, 64, generator, (channels, size, size, size), slice(None))
    seen = batched_view(images, draws, view, size)
    return not torch.allclose(seen, images / 255, atol=1e-5)


def test_a_view_of_no_operation_changes_nothing(generator):
    assert not changed(NOTHING, generator)


@pytest.mark.parametrize("name", [*PAIRS, "cifar10"])
def test_every_operation_of_a_pipeline_changes_images_and_none_else_does(name, generator):
    pipeline = open_pipeline(name, 3)
    for operation in OPERATIONS:
        alone = pipeline.only(operation)
        assert alone.operations == ((operation,) if operation in pipeline.operations else ())
        assert (changed(alone.first, generator) or changed(alone.second, generator)) == bool(alone.operations)
        left = pipeline.without(operation)
        assert left.operations == tuple(one for one in pipeline.operations if one != operation)


def test_the_pipelines_of_imagenet_are_unlike_and_others_are_not():
    assert [open_pipeline(name, 3).alike for name in ("imagenet", "cifar10", "digits")] == [False, True, True]


def test_grey_images_have_neither_hue_nor_grey():
    pipeline = open_pipeline("cifar10", 1)
    assert pipeline.operations == ("crop", "flip", "colour")
    assert pipeline.first.jitter[2:] == (0.0, 0.0)


def test_a_file_describes_both_views_and_leaves_out_what_it_does_not_name(tmp_path):
    file = tmp_path / "views.toml"
    file.write_text("scale = [0.5, 1.0]\nflip = 0.5\njitter = [0.4, 0.4, 0, 0]\njitter-probability = 0.5\n")
    pipeline = open_pipeline(str(file), 3)
    assert pipeline.operations == ("crop", "flip", "colour")
    assert pipeline.alike
    assert (pipeline.first.scale, pipeline.first.jitter_probability) == ((0.5, 1.0), 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cutout = 0.5", "'cutout'"),
        ("flip = 2", "flip is 2.0; it must be between 0 and 1"),
        ('flip = "often"', "flip is 'often'; it takes numbers"),
        ("scale = [0.5]", "scale is"),
        ('scale = ["small", 1.0]', "write two fractions"),
        ("scale = [1.0, 0.5]", "scale is"),
        ("jitter = [0.4, 0.4, 0.4, 0.9]", "jitter is"),
        ("blur_sigma = [-1, 2]", "blur_sigma is"),
        ("blur = 1\nblur_sigma = [1e-9, 2]", "between 0.05 and 100"),
        ("scale = [1e-9, 1]", "between 0.001 and 1"),
        ("ratio = [1e-9, 1]", "between 0.01 and 100"),
        ("[crop]\nscale = [0.5, 1.0]", "table"),
        ("flip == 1", "no TOML"),
        ("", "changes no image"),
        ("jitter = [0, 0, 0, 0]", "changes no image"),
    ],
)
def test_a_file_that_describes_no_augmentation_is_refused_in_one_line(text, words, tmp_path):
    file = tmp_path / "views.toml"
    file.write_text(text)
    with pytest.raises(SettingError) as refused:
        open_pipeline(str(file), 3)
    line = str(refused.value)
    assert words in line
    assert "\n" not in line
    assert line.startswith(f"augment {file}")


@pytest.mark.parametrize("name", ["strong", "", "views.TOML", "missing.toml"])
def test_unknown_pipelines_are_refused(name):
    with pytest.raises(SettingError, match="augment"):
        open_pipeline(name, 3)


def test_pairs_of_an_encoder_have_the_views_of_its_training(tmp_path):
    recipe = small(epochs=1, images=64, batch_size=32, crop_scale=0.9, colour=0.5)
    pretrain(recipe, tmp_path / "run", ALONE)
    options = PredictOptions(data="digits", features=tmp_path / "run", images=200)
    assert open_pairs(options, print).pairs.pipeline[:2] == pair_of(recipe)
    usual = replace(options, augment="digits")
    assert open_pairs(usual, print).pairs.pipeline == open_pipeline("digits", 1)
