"""Image folders whole and damaged, digits, CIFAR-10, and batches that do not depend on who reads them."""

import os
import re

import numpy as np
import pytest
import torch
from helpers.bridge import write_images
from helpers.constants import set_constant

from dyncollapse.bridge import HeldImages, Skipped, Unreadable, open_data
from dyncollapse.bridge.data import batches as loading
from dyncollapse.bridge.data.augmentations import CIFAR
from dyncollapse.bridge.data.batches import Order, batches_from_memory, batches_from_workers, batches_in_order, mix
from dyncollapse.bridge.data.images import hold
from dyncollapse.bridge.data.skipped import read_near

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "photos" / "train")
    write_images(tmp_path / "photos" / "val", 2, seed=1)
    return tmp_path / "photos"


def damage(path):
    path.write_bytes(path.read_bytes()[:300])


def test_folder_with_train_and_val(folder):
    data = open_data(str(folder))
    assert (len(data.train), len(data.test), data.classes) == (12, 4, ["cat", "dog"])
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    image = data.train.read(0)
    assert (image.shape, image.dtype) == ((3, 40, 30), torch.uint8)
    assert data.train.name(0).endswith("cat/0000.jpg")


def test_folder_of_classes_has_no_test_images(folder):
    data = open_data(str(folder / "train"))
    assert len(data.split("train")) == 12
    with pytest.raises(ValueError, match="has no test images"):
        data.split("test")


def test_digits_are_parted_by_writers():
    data = open_data("digits")
    assert (len(data.train), len(data.test), data.train.channels) == (1297, 500, 1)
    assert int(data.train.pixels.max()) == 255


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "val" / "dog").rename(f / "val" / "fox"), "they differ in dog, fox"),
        (lambda f: [p.rename(p.with_suffix(".txt")) for p in (f / "val").glob("*/*.jpg")], "val holds no images"),
        (lambda f: (f / "cifar-10-batches-py").mkdir(), "is damaged or incomplete"),
    ],
)
def test_half_copied_folder_is_refused(folder, break_it, words):
    break_it(folder)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        open_data(str(folder))
    assert "\n" not in str(error.value)


def test_train_that_was_not_copied_is_missed(folder):
    (folder / "train").rename(folder.parent / "elsewhere")
    with pytest.raises(ValueError, match="has test images and no train/; is it only half copied"):
        open_data(str(folder))


def test_what_is_no_folder_of_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in ((str(tmp_path / "gone"), "is no folder"), (str(tmp_path / "empty"), "holds no images")):
        with pytest.raises(ValueError, match=words):
            open_data(name)


def test_image_that_cannot_be_read_is_named_and_the_next_one_taken(folder):
    damage(folder / "train" / "cat" / "0002.jpg")
    (folder / "train" / "cat" / "0003.jpg").write_bytes(b"")
    images = open_data(str(folder)).train
    number, pixels, failures = read_near(images, 2)
    assert number == 4
    assert torch.equal(pixels, images.read(4))
    assert [index for index, _ in failures] == [2, 3]
    assert "cat/0002.jpg cannot be read as an image (" in failures[0][1]
    assert "\n" not in failures[0][1]


def test_nothing_to_read_is_an_error(folder):
    for path in folder.rglob("train/*/*.jpg"):
        path.write_bytes(b"no image")
    images = open_data(str(folder)).train
    with pytest.raises(Unreadable, match="nor can 63 after it"):
        read_near(images, 0)
    with pytest.raises(Unreadable, match="none of the 12 images"):
        hold(images, 32, Skipped(images, tell=lambda _text: None))


def test_skipped_images_are_counted_once_and_fatal_when_strict(folder):
    images, told = open_data(str(folder)).train, []
    skipped = Skipped(images, tell=told.append)
    for _ in range(2):
        skipped.add([(1, "cat/0001.jpg is broken")])
    assert told == []  # none was read yet: this may end in a refusal, which is one line
    for _ in range(2):
        skipped.check(1)
    assert told == ["skipped: cat/0001.jpg is broken"]
    assert skipped.sentence.startswith("1 of 12 images could not be read and were skipped: ")
    assert Skipped(images).sentence == ""
    with pytest.raises(Unreadable, match="leave out strict"):
        Skipped(images, strict=True).add([(1, "broken")])


def test_images_are_held_in_one_size(folder):
    images = open_data(str(folder)).train
    held = hold(images, 32, Skipped(images, strict=True))
    assert held.pixels.shape == (12, 3, 40, 30)  # all of one size, and small: kept
    assert torch.equal(held.labels, images.labels)
    write_images(folder / "other", 1, (64, 50))
    (folder / "other" / "cat" / "0000.jpg").rename(folder / "train" / "cat" / "9999.jpg")
    damage(folder / "train" / "dog" / "0000.jpg")
    images = open_data(str(folder)).train
    skipped = Skipped(images, tell=lambda _text: None)
    held = hold(images, 32, skipped)
    assert held.pixels.shape == (12, 3, 32, 32)
    assert list(skipped.reasons) == [7]
    threaded = hold(images, 32, Skipped(images, tell=lambda _text: None), threads=3)
    assert torch.equal(held.pixels, threaded.pixels)
    with pytest.raises(Unreadable, match="leave out strict"):
        hold(images, 32, Skipped(images, strict=True))
    assert held.labels.tolist() == [0] * 7 + [1] * 5


# --- Batches


def test_an_epoch_is_a_permutation_and_epochs_differ():
    order = Order(25, 6, 3)
    assert order.steps_per_epoch == 4
    steps = list(order.steps(0, 8))
    first, second = (torch.cat([chosen for _, epoch, chosen in steps if epoch == e]) for e in (0, 1))
    assert len(set(first.tolist())) == len(first) == 24
    assert not torch.equal(first, second)
    # Starting in the middle gives what comes there.
    for (step, epoch, chosen), (s, e, c) in zip(steps[5:], order.steps(5, 8), strict=True):
        assert (step, epoch) == (s, e)
        assert torch.equal(chosen, c)


def test_seeds_are_mixed_well():
    seeds = {mix(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert min(seeds) >= 0


def collect(batches):
    return [(torch.stack(batch.views), batch.indices) for batch in batches]


@pytest.mark.parametrize("mixed", [False, True])
def test_views_do_not_depend_on_workers_nor_on_processes_nor_on_what_came_before(mixed, folder):
    images, order = open_data(str(folder)).train, Order(12, 4, 7)

    def made(rows, steps=(0, 6), workers=0):
        return collect(
            batches_from_workers(
                images, CIFAR, 16, order, steps=steps, rows=rows, device=CPU, workers=workers, mixed=mixed
            )
        )

    whole = made(slice(0, 4))
    assert len(whole) == 6
    halves = [made(slice(0, 2), workers=2), made(slice(2, 4))]
    later = made(slice(0, 4), (4, 6))
    for k, (views, indices) in enumerate(whole):
        assert torch.equal(views, torch.cat([half[k][0] for half in halves], 1))
        assert torch.equal(indices, torch.cat([half[k][1] for half in halves]))
    for (views, _), (again, _) in zip(whole[4:], later, strict=True):
        assert torch.equal(views, again)
    assert not torch.equal(whole[0][0][0], whole[0][0][1])


@pytest.mark.parametrize("mixed", [False, True])
def test_batches_do_not_depend_on_the_chunks_that_workers_hand_over(mixed, folder, monkeypatch):
    images, order = open_data(str(folder)).train, Order(12, 6, 7)

    def made(chunk):
        set_constant(monkeypatch, "bridge.data.batches.CHUNK", chunk)
        return collect(
            batches_from_workers(
                images, CIFAR, 16, order, steps=(0, 4), rows=slice(0, 6), device=CPU, workers=0, mixed=mixed
            )
        )

    whole, parts = made(32), made(4)
    assert len(whole) == len(parts) == 4
    for (views, indices), (same_views, same_indices) in zip(whole, parts, strict=True):
        assert torch.equal(views, same_views)
        assert torch.equal(indices, same_indices)


def test_reading_leaves_the_global_generator_alone(folder):
    images, order = open_data(str(folder)).train, Order(12, 4, 7)
    before = torch.get_rng_state()
    collect(batches_from_workers(images, CIFAR, 16, order, steps=(0, 2), rows=slice(0, 4), device=CPU, workers=0))
    assert torch.equal(before, torch.get_rng_state())


def test_views_from_memory_do_not_depend_on_processes_nor_on_what_came_before():
    images, order = open_data("digits").train, Order(1297, 8, 1)

    def made(rows, steps=(0, 3)):
        return collect(batches_from_memory(images, CIFAR, 8, order, steps=steps, rows=rows, device=CPU))

    whole, halves, last = made(slice(0, 8)), [made(slice(0, 4)), made(slice(4, 8))], made(slice(0, 8), (2, 3))
    for k, (views, _) in enumerate(whole):
        assert torch.equal(views, torch.cat([half[k][0] for half in halves], 1))
    assert torch.equal(whole[2][0], last[0][0])


def test_damaged_image_is_replaced_in_training_and_left_out_in_order(folder):
    damage(folder / "train" / "cat" / "0001.jpg")
    images, order = open_data(str(folder)).train, Order(12, 12, 0)
    (batch,) = batches_from_workers(images, CIFAR, 16, order, steps=(0, 1), rows=slice(0, 12), device=CPU, workers=0)
    assert sorted(batch.indices.tolist()) == [0, 2, 2, *range(3, 12)]
    assert [index for index, _ in batch.failures] == [1]
    batches = list(batches_in_order(images, (None, CIFAR[0]), 16, batch_size=5, device=CPU, workers=0, seed=0))
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, *range(2, 12)]
    assert [batch.views[0].shape[0] for batch in batches] == [4, 5, 2]
    assert len(batches[0].failures) == 1


def test_batches_in_order_show_held_images_as_they_are():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8))
    images = HeldImages(pixels, torch.arange(5), "made")
    first, second = batches_in_order(images, (None, CIFAR[0]), 8, batch_size=3, device=CPU, workers=0, seed=0)
    assert (len(first.indices), len(second.indices)) == (3, 2)
    assert first.views[1].shape == (3, 3, 8, 8)
    again = next(batches_in_order(images, (None, CIFAR[0]), 8, batch_size=3, device=CPU, workers=0, seed=0))
    assert torch.equal(first.views[1], again.views[1])


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted as Linux lists them")
@pytest.mark.parametrize("training", [False, True])
def test_batches_that_are_kept_keep_no_file_open(training, folder, monkeypatch):
    set_constant(monkeypatch, "bridge.data.batches.CHUNK", 1)
    images, kept, counts = open_data(str(folder)).train, [], []
    if training:
        batches = batches_from_workers(
            images, CIFAR, 8, Order(12, 2, 0), steps=(0, 12), rows=slice(0, 2), device=CPU, workers=1
        )
    else:
        batches = batches_in_order(images, (None, CIFAR[0]), 8, batch_size=1, device=CPU, workers=1, seed=0)
    for batch in batches:
        kept.append(batch)
        counts.append(open_files())
    assert len(kept) == 12
    # What is on its way between the processes varies a little; what is kept would be 12 or more.
    assert max(counts[3:]) - min(counts[3:]) < 6


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted as Linux lists them")
def test_a_batch_of_many_chunks_takes_few_open_files(folder, monkeypatch):
    set_constant(monkeypatch, "bridge.data.batches.CHUNK", 1)
    counts, whole = [], loading.normalise
    monkeypatch.setattr(loading, "normalise", lambda views, *how: counts.append(open_files()) or whole(views, *how))
    images = open_data(str(folder)).train
    images = images.take(torch.arange(30) % 12)
    before = open_files()
    (batch,) = batches_from_workers(
        images, CIFAR, 8, Order(30, 30, 0), steps=(0, 1), rows=slice(0, 30), device=CPU, workers=1
    )
    assert sorted(batch.indices.tolist()) == list(range(30))
    assert max(counts) < before + 30  # one a chunk and view would be 60


@pytest.mark.parametrize("workers", [0, 1])
def test_training_ends_in_one_line_where_no_image_can_be_read(workers, folder):
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"no image")
    images = open_data(str(folder)).train
    with pytest.raises(Unreadable, match="nor can 63 after it"):
        next(
            batches_from_workers(
                images, CIFAR, 8, Order(12, 4, 0), steps=(0, 1), rows=slice(0, 4), device=CPU, workers=workers
            )
        )
