"""Augmentations of whole batches: torchvision's operations, drawn per sample, the same for every split."""

import math

import pytest
import torch
from helpers.constants import set_constant
from torchvision.transforms.v2 import functional as f

from dyncollapse.bridge.data import augmentations as views
from dyncollapse.bridge.data.augmentations import (
    PAIRS,
    View,
    batched_view,
    crop_only,
    draw_views,
    normalise,
    plain,
    square,
    view_settings,
    worker_view,
)

# Both sides round in float32; torchvision's order of operations differs.
ROUNDING = {"atol": 3e-6, "rtol": 0}


@pytest.fixture
def images(generator):
    return torch.rand(5, 3, 12, 10, generator=generator)


def factors(generator, low, high):
    return low + (high - low) * torch.rand(5, generator=generator)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (views.brighten, f.adjust_brightness, 0.2, 1.8),
        (views.contrast, f.adjust_contrast, 0.2, 1.8),
        (views.saturate, f.adjust_saturation, 0.2, 1.8),
        (views.turn_hue, f.adjust_hue, -0.5, 0.5),
    ],
)
def test_jitters_are_torchvisions_sample_by_sample(ours, theirs, low, high, images, generator):
    drawn = factors(generator, low, high)
    expected = torch.stack([theirs(image, float(factor)) for image, factor in zip(images, drawn, strict=True)])
    torch.testing.assert_close(ours(images, drawn.view(-1, 1, 1, 1)), expected, **ROUNDING)
    assert not torch.allclose(expected, images, atol=0.05)


def test_hue_of_grey_black_and_white_stays(generator):
    flat = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    torch.testing.assert_close(views.turn_hue(flat, factors(generator, -0.5, 0.5)[:3].view(-1, 1, 1, 1)), flat)


def test_grey_is_torchvisions(images):
    torch.testing.assert_close(views.grey(images), f.rgb_to_grayscale(images), **ROUNDING)
    assert torch.equal(views.grey(images[:, :1]), images[:, :1])


def test_blur_is_torchvisions_sample_by_sample(images, generator):
    sigma = factors(generator, 0.1, 2.0)
    expected = torch.stack([f.gaussian_blur(i, [5, 5], [float(s)] * 2) for i, s in zip(images, sigma, strict=True)])
    torch.testing.assert_close(views.blur(images, sigma, 5), expected, **ROUNDING)
    assert views.blur(images, sigma, 23).shape == images.shape  # as wide as a small image allows


def draws(view, count, size, shape=(3, 12, 10), seed=0, rows=slice(None)):
    return draw_views(view, count, torch.Generator().manual_seed(seed), (*shape, size), rows)


WHOLE = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grey=0.0)


def test_view_of_the_whole_image_is_the_image_and_flips(generator):
    pixels = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=generator)
    for flip, expected in ((0.0, pixels), (1.0, pixels.flip(-1))):
        view = View(**{**vars(WHOLE), "flip": flip})
        found = batched_view(pixels, draws(view, 4, 9, (3, 9, 9)), view, 9)
        torch.testing.assert_close(found, expected / 255, atol=1e-5, rtol=0)


def test_cropped_images_keep_their_geometry(generator):
    pixels = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=generator)
    view = crop_only(PAIRS["imagenet"][0])
    assert torch.equal(batched_view(pixels, draws(view, 4, 9, (3, 9, 9)), view, 9, cropped=True), pixels / 255)


def test_resizing_is_bilinear_interpolation(generator):
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)
    found = batched_view(pixels, draws(WHOLE, 2, 16, (3, 8, 8)), WHOLE, 16)
    expected = torch.nn.functional.interpolate(pixels / 255, size=16, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_quarter_turn_is_exact():
    pixels = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7)
    drawn = draws(WHOLE, 1, 7, (1, 7, 7))
    drawn["affine"] = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    found = batched_view(pixels, drawn, WHOLE, 7)
    torch.testing.assert_close(found[0, 0], torch.rot90(pixels[0, 0], 1) / 255, atol=1e-5, rtol=0)


def test_crops_have_the_area_and_aspect_that_are_asked_for():
    view = View(scale=(0.25, 0.5), ratio=(0.8, 1.25), flip=0.5, degrees=0.0)
    affine = draws(view, 4000, 32, (3, 64, 64))["affine"]
    width, height = affine[:, 0, 0].abs(), affine[:, 1, 1]
    area, aspect = width * height, width / height
    assert float(area.min()) >= 0.25 - 1e-6
    assert float(area.max()) <= 0.5 + 1e-6
    assert float(area.mean()) == pytest.approx(0.375, abs=4 * 0.25 / math.sqrt(12 * 4000))
    assert float(aspect.min()) >= 0.8 - 1e-5
    assert float(aspect.max()) <= 1.25 + 1e-5
    # No crop leaves the image: its far edge lies at shift +- size.
    assert float((affine[:, 0, 2].abs() + width).max()) <= 1 + 1e-5
    mirrored = (affine[:, 0, 0] < 0).double().mean()
    assert float(mirrored) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))


@pytest.mark.parametrize("augment", PAIRS)
def test_draws_do_not_depend_on_how_processes_share_the_batch(augment):
    for view in PAIRS[augment]:
        whole = draws(view, 6, 8)
        parts = [draws(view, 6, 8, rows=rows) for rows in (slice(0, 3), slice(3, 6))]
        for name, values in whole.items():
            joined = parts[0][name] if name == "order" else torch.cat([part[name] for part in parts])
            assert torch.equal(values, joined), name
        assert not torch.equal(whole["affine"], draws(view, 6, 8, seed=1)["affine"])


def test_every_sample_of_a_batch_gets_its_own_view(generator):
    one = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=generator).expand(8, 3, 32, 32)
    for pair in PAIRS.values():
        found = batched_view(one, draws(pair[0], 8, 32, (3, 32, 32)), pair[0], 32)
        apart = torch.cdist(found.flatten(1), found.flatten(1)) + torch.eye(8) * 1e3
        assert float(apart.min()) > 0.1


@pytest.mark.parametrize(("augment", "number"), [("imagenet", 0), ("imagenet", 1), ("cifar", 0), ("digits", 0)])
def test_batched_views_are_distributed_as_torchvisions(augment, number, generator):
    # Two implementations: mean, spread and roughness of the pixels over many views of one smooth image.
    view, count, side = PAIRS[augment][number], 500, 24
    channels = 1 if augment == "digits" else 3
    coarse = torch.rand(1, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    image = (smooth * 255).to(torch.uint8)
    many = image.expand(count, -1, -1, -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole, crop = worker_view(view, side), worker_view(crop_only(view), side)
        theirs = torch.stack([whole(image[0]) for _ in range(count)]) / 255
        cut = torch.stack([crop(image[0]) for _ in range(count)])
    drawn = draws(view, count, side, image.shape[1:])
    # All by ours, and cropped by torchvision with the rest by ours.
    for ours in (batched_view(many, drawn, view, side), batched_view(cut, drawn, view, side, cropped=True)):
        for statistic in (
            lambda x: x.mean((1, 2, 3)),
            lambda x: x.std((2, 3)).mean(1),
            lambda x: x.diff(dim=-1).abs().mean((1, 2, 3)),
            lambda x: (x.amax(1) - x.amin(1)).mean((1, 2)),
        ):
            a, b = statistic(ours), statistic(theirs)
            error = float(torch.hypot(a.std(), b.std())) / math.sqrt(count)
            # Five standard errors, and 2 % of the pixels' range for bicubic against bilinear and rotation before the
            # crop.
            assert abs(float(a.mean() - b.mean())) < 5 * error + 0.02


def test_plain_images_are_cut_from_the_middle(generator):
    pixels = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8, generator=generator)
    assert plain(pixels, 224).shape == (3, 224, 224)
    assert plain(pixels, 32).shape == (3, 32, 32)
    assert torch.equal(plain(pixels[:, :32, :32], 32), pixels[:, :32, :32])
    assert torch.equal(square(pixels, 300, 300), pixels[:, :, 50:350])


def test_normalised_pixels_have_the_mean_and_spread_of_the_table():
    grey = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    assert torch.equal(normalise(grey), torch.ones(1, 1, 2, 2))
    colours = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(normalise(colours), f.normalize(colours, *map(list, views.COLOURS[3])))


@pytest.mark.parametrize("shape", [(3, 5, 85), (3, 85, 5), (3, 2, 37)])
def test_square_of_a_strip_is_that_of_the_whole_strip(shape, monkeypatch, generator):
    strip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    cut = square(strip, 32, 32)
    set_constant(monkeypatch, "bridge.data.augmentations.LONGEST", 1000)
    assert (cut.int() - square(strip, 32, 32).int()).abs().float().mean() < 1  # of 255; the length is rounded


def test_long_strips_take_little_memory():
    assert square(torch.zeros(1, 1, 10_000_000, dtype=torch.uint8), 256, 224).shape == (1, 224, 224)


def test_crops_and_colours_can_be_given_beside_a_name():
    assert view_settings("imagenet") == PAIRS["imagenet"]
    first, second = view_settings("imagenet", crop_scale=0.5, colour=0.5)
    assert first.scale == second.scale == (0.5, 1.0)
    assert first.jitter == pytest.approx([0.2, 0.2, 0.1, 0.05])
    assert (first.blur, second.solarise) == (1.0, 0.2)
    plain_colours, _ = view_settings("cifar", colour=0)
    assert plain_colours.jitter == (0, 0, 0, 0)
    assert plain_colours.scale == PAIRS["cifar"][0].scale


def test_strongest_colours_stay_in_the_ranges_of_torchvision(images):
    strongest, _ = view_settings("cifar", colour=2.5)
    draws = draw_views(strongest, 5, torch.Generator().manual_seed(0), (3, 12, 10, 12), slice(None))
    assert draws["jitter"][:, :3].min() >= 0
    assert draws["jitter"][:, 3].abs().max() <= 0.5
    worker_view(strongest, 12)((255 * images[0]).to(torch.uint8))
