"""What each operation of an augmentation costs, on images where that is known."""

import pytest
import torch

from dyncollapse.bridge.data.augmentations import View
from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs
from dyncollapse.bridge.prediction.pipelines import NOTHING, Pipeline
from dyncollapse.bridge.prediction.table import augmentation_table
from dyncollapse.bridge.prediction.views import CHUNK, ViewPairs

SIZE = 4
FLIP = View(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.5, jitter_probability=0.0, grey=0.2)


def white_noise(generator, channels=3, count=1500):
    """Images of independent pixels, the same in all channels, so that they are grey."""
    pixels = torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return HeldImages(pixels.expand(-1, channels, -1, -1).contiguous(), torch.zeros(count, dtype=torch.int64), "noise")


def test_flips_empty_what_is_odd_and_grey_changes_no_grey_image(generator):
    pairs = ViewPairs(white_noise(generator), Pipeline(FLIP, FLIP, "flips"), size=SIZE)
    found = find_directions(measure_pairs(pairs, "two-sided", len(pairs)), 16, alike=True)
    table = augmentation_table(pairs, found)
    assert [row.operation for row in table.rows] == ["flip", "grey"]
    flip, grey = table.rows
    even = SIZE * SIZE // 2  # half of the patterns are the same when they are flipped
    assert found.count == 16
    assert int(found.shared.sum()) == table.whole.signal_rank == flip.alone.signal_rank == even
    assert grey.alone.signal_rank == flip.without.signal_rank == 16
    assert grey.alone.difference_trace == pytest.approx(0, abs=1e-5)
    assert flip.alone.shared_share == pytest.approx(0.5, abs=0.03)
    # The views of half of the images differ by twice their odd part, which has half of the variance.
    view_cov = found.measured.moments.view_cov
    assert flip.alone.difference_trace == pytest.approx(float(view_cov.trace()), rel=0.05)


def test_a_pipeline_of_one_operation_has_nothing_without_it(generator):
    noise = Pipeline(View(**{**vars(NOTHING), "noise": 0.2}), View(**{**vars(NOTHING), "noise": 0.2}), "noise")
    pairs = ViewPairs(white_noise(generator, channels=1), noise, size=SIZE)
    table = augmentation_table(pairs, find_directions(measure_pairs(pairs, "two-sided", len(pairs)), 16, alike=True))
    assert [(row.operation, row.without) for row in table.rows] == [("noise", None)]
    assert table.whole == table.rows[0].alone


def test_views_of_an_image_depend_on_its_place_and_the_seed_alone(generator):
    images = white_noise(generator, count=CHUNK + 40)
    pairs = ViewPairs(images, Pipeline(FLIP, FLIP, "flips"), size=SIZE)
    chunks, again = list(pairs), list(pairs.with_(progress=lambda *_: None))
    assert [len(first) for first, _ in chunks] == [CHUNK, 40]
    assert all(
        torch.equal(one, other)
        for two, twin in zip(chunks, again, strict=True)
        for one, other in zip(two, twin, strict=True)
    )
    assert not torch.equal(next(iter(pairs.with_(seed=1)))[0], chunks[0][0])


def test_progress_counts_images(generator):
    seen = []
    pairs = ViewPairs(white_noise(generator, count=300), Pipeline(FLIP, FLIP, "flips"), size=SIZE)
    list(pairs.with_(progress=lambda done, total: seen.append((done, total))))
    assert seen == [(CHUNK, 300), (300, 300)]


def test_one_sided_pairs_are_centred_on_the_anchors_in_the_table_as_in_the_measurement(generator):
    brighter = View(**{**vars(NOTHING), "jitter": (0.9, 0.0, 0.0, 0.0), "jitter_probability": 1.0})
    pairs = ViewPairs(
        white_noise(generator, channels=1), Pipeline(brighter, brighter, "bright"), size=SIZE, views="one-sided"
    )
    measured = measure_pairs(pairs, "one-sided", len(pairs))
    assert float(measured.first.mean(0).abs().max()) < 1e-6
    assert float(measured.second.mean()) != pytest.approx(0, abs=1e-6)  # relative to the anchors' mean
    found = find_directions(measured, 16)
    assert augmentation_table(pairs, found).whole.signal_rank == int(found.shared.sum())
