"""What is done with an encoder: embeddings in files, probes, one diagnosis of both spaces."""

import errno
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.bridge import ALONE, small, write_images
from torch import nn

from dyncollapse import diagnose
from dyncollapse.bridge import (
    Encoder,
    HeldImages,
    Skipped,
    Unreadable,
    adjacent_layers,
    build_encoder,
    diagnose_spaces,
    embed,
    load_encoder,
    logistic_probe,
    open_data,
    pretrain,
    sgd_probe,
)
from dyncollapse.bridge.data.augmentations import normalise
from dyncollapse.bridge.evaluation.diagnose import is_linear, narrowest_input
from dyncollapse.bridge.evaluation.load import from_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pretrain(small(epochs=6, projector="linear"), folder, ALONE)
    return folder


@pytest.fixture
def loaded(run):
    return load_encoder(run)


def photos(tmp_path, **settings):
    """An untrained encoder of photos, and a folder of them."""
    recipe = small(
        preset="digits", data=str(write_images(tmp_path / "photos")), image_size=16, augment="cifar", **settings
    )
    encoder = build_encoder(recipe, 3).eval()
    return from_recipe(encoder, recipe, 3, tmp_path), open_data(recipe.data).train


# --- Embeddings


def test_files_hold_what_the_encoder_gives(loaded, tmp_path):
    images = open_data("digits").test
    found = embed(loaded, images, tmp_path, batch_size=100)
    with torch.no_grad():
        r, z = loaded.encoder(normalise(images.pixels))
    for name, expected in (("representation", r), ("embedding", z)):
        array = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        assert array.dtype == np.float32
        torch.testing.assert_close(torch.from_numpy(array.copy()), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[name][0], torch.from_numpy(array.copy()))
    assert np.array_equal(np.load(tmp_path / "labels.npy"), images.labels)
    record = json.loads((tmp_path / "embed.json").read_text())
    assert (record["rows"], record["skipped"], record["recipe"]["projector"]) == (500, [], "linear")
    assert {path.name for path in tmp_path.iterdir()} == {*record["files"], "embed.json"}


@pytest.mark.parametrize(("views", "clean"), [("one-sided", True), ("two-sided", False)])
def test_second_views_are_of_the_same_images(views, clean, loaded, tmp_path):
    images = open_data("digits").test
    plain = embed(loaded, images, tmp_path, spaces=["representation"])["representation"][0].clone()
    found = embed(loaded, images, tmp_path, views=views, seed=1)
    first, second = found["representation"]
    assert torch.equal(first, plain) is clean
    # A view is nearer to its own image's other view than to another image's, in more than the half that chance gives.
    own, others = (first - second).norm(dim=1), (first - second.roll(1, 0)).norm(dim=1)
    assert float((own < others).double().mean()) > 0.6
    again = embed(loaded, images, tmp_path, views=views, seed=1, batch_size=256)
    assert torch.equal(again["embedding"][1], found["embedding"][1])


def test_batch_normalisation_stays_in_evaluation_mode(loaded, tmp_path):
    before = {name: value.clone() for name, value in loaded.encoder.state_dict().items()}
    loaded.encoder.train()
    embed(loaded, open_data("digits").test, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in loaded.encoder.state_dict().items())


def test_image_that_cannot_be_read_has_no_row(tmp_path):
    loaded, images = photos(tmp_path)
    (tmp_path / "photos" / "dog" / "0001.jpg").write_bytes(b"broken")
    (tmp_path / "out").mkdir()
    found = embed(loaded, images, tmp_path / "out", batch_size=4, views="two-sided", workers=2)
    assert found["embedding"][1].shape == (11, 64)
    assert found.labels.tolist() == [0] * 6 + [1] * 5
    assert found.skipped.startswith("1 of 12 images could not be read and were skipped")
    (reason,) = json.loads((tmp_path / "out" / "embed.json").read_text())["skipped"]
    assert "dog/0001.jpg" in reason
    assert np.load(tmp_path / "out" / "representation_pos.npy").shape == (11, 128)
    with pytest.raises(Unreadable, match="leave out strict"):
        embed(loaded, images, tmp_path / "out", skipped=Skipped(images, strict=True))
    for path in (tmp_path / "photos").rglob("*.jpg"):
        path.write_bytes(b"broken")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none of the 12 images can be read"):
        embed(loaded, images, tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize("failing", ["posix_fallocate", "replace"])
def test_full_disk_leaves_no_half_written_file(failing, loaded, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        embed(loaded, open_data("digits").test, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_embeddings_are_float32_whatever_the_run_was_trained_in(loaded, tmp_path):
    images = open_data("digits").test
    exact = embed(loaded, images, tmp_path)["embedding"][0].clone()
    coarse = replace(loaded, recipe=replace(loaded.recipe, precision="bfloat16"))
    assert torch.equal(embed(coarse, images, tmp_path)["embedding"][0], exact)


def test_encoder_without_projector_has_no_embedding(loaded, tmp_path):
    with pytest.raises(ValueError, match="has no recognised projector"):
        embed(replace(loaded, has_embedding=False), open_data("digits").test, tmp_path)


# --- Probes


def clusters(generator, n=600, dim=8, classes=3, apart=3.0):
    """Isotropic Gaussians whose centres are `apart` from each other, along the first axes."""
    labels = torch.arange(n) % classes
    centres = torch.zeros(classes, dim)
    centres[torch.arange(classes), torch.arange(classes)] = apart / math.sqrt(2)
    return centres[labels] + torch.randn(n, dim, generator=generator), labels


@pytest.mark.seeds(3)
def test_logistic_probe_reaches_the_best_accuracy_there_is(generator):
    train, test = clusters(generator, 3000), clusters(generator, 3000)
    found = logistic_probe(train, test)
    centres = torch.eye(3, 8) * (3 / math.sqrt(2))
    best = 100 * float((torch.cdist(test[0], centres).argmin(1) == test[1]).double().mean())
    assert abs(found.top1 - best) < 4 * found.error
    assert found.error == pytest.approx(100 * math.sqrt(best / 100 * (1 - best / 100) / 3000), rel=0.1)
    assert (found.dimensions, found.of, found.train, found.test) == (8, 8, 3000, 3000)


def test_logistic_probe_takes_arrays():
    r, classes = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    arrays = r.numpy()[::-1], classes.numpy()[::-1]  # negative strides
    assert logistic_probe(arrays, arrays) == logistic_probe((r.flip(0), classes.flip(0)), (r.flip(0), classes.flip(0)))


def test_logistic_probe_does_not_see_units_nor_rotations_nor_offsets(generator):
    train, test = clusters(generator), clusters(generator)
    q = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    moved = [(5 * features @ q + 100, labels) for features, labels in (train, test)]
    assert logistic_probe(train, test).top1 == logistic_probe(*moved).top1


def test_logistic_probe_leaves_collapsed_dimensions_small(generator):
    # The classes are told by a dimension of 1e-6 of the others' spread: scaled up alone, it would be read perfectly.
    train, test = clusters(generator, apart=0.0), clusters(generator, apart=0.0)
    for features, labels in (train, test):
        features[:, 0] = labels * 1e-6
    assert logistic_probe(train, test).top1 < 60


def test_probe_of_a_subvector_reads_no_more_than_that(generator):
    train, test = clusters(generator), clusters(generator)
    alone = logistic_probe((train[0][:, :2], train[1]), (test[0][:, :2], test[1]))
    part = logistic_probe(train, test, 2)
    assert (part.top1, part.dimensions, part.of) == (alone.top1, 2, 8)
    for wrong in (0, 9):
        with pytest.raises(ValueError, match=rf"subvector is {wrong}, but the representation has 8"):
            logistic_probe(train, test, wrong)


def test_probe_of_a_constant_is_refused():
    rows = torch.ones(6, 3), torch.arange(6) % 2
    with pytest.raises(ValueError, match="do not vary"):
        logistic_probe(rows, rows)


def test_probe_of_one_class_is_refused(generator):
    features = torch.randn(6, 3, generator=generator)
    one, two = torch.zeros(6, dtype=torch.int64), torch.arange(6) % 2
    with pytest.raises(ValueError, match="data has training images of 1 class"):
        logistic_probe((features, one), (features, two))
    assert logistic_probe((features, two), (features, one)).test == 6


def test_sgd_probe_agrees_with_logistic_regression(tmp_path):
    # Without a projector the spectrum is flat enough for a few epochs of SGD to see most of it.
    pretrain(small(epochs=6, projector="none"), tmp_path, ALONE)
    data, loaded = open_data("digits"), load_encoder(tmp_path)
    before = {name: value.clone() for name, value in loaded.encoder.state_dict().items()}
    done = []
    by_sgd = sgd_probe(loaded, data.train, data.test, epochs=10, progress=lambda k, n: done.append((k, n)))
    rows = [embed(loaded, images, tmp_path, spaces=["representation"]) for images in (data.train, data.test)]
    train, test = ((found["representation"][0], found.labels) for found in rows)
    by_regression = logistic_probe(train, test)
    assert abs(by_sgd.top1 - by_regression.top1) < 6  # crops and few epochs cost a little
    assert by_sgd.top1 > 80
    assert done[-1] == (50, 50)
    assert all(torch.equal(value, before[name]) for name, value in loaded.encoder.state_dict().items())
    again = sgd_probe(loaded, data.train, data.test, epochs=1)
    assert again == sgd_probe(loaded, data.train, data.test, epochs=1)
    assert again.dimensions == 128
    assert sgd_probe(loaded, data.train, data.test, epochs=1, subvector=5).dimensions == 5


def test_sgd_probe_reads_folders_and_skips_what_is_broken(tmp_path):
    loaded, images = photos(tmp_path)
    (tmp_path / "photos" / "dog" / "0001.jpg").write_bytes(b"broken")
    found = sgd_probe(loaded, images, images, epochs=1)
    assert (found.train, found.test) == (12, 11)


# --- Both spaces


def test_spaces_are_diagnosed_as_files_are(loaded, tmp_path):
    found = embed(loaded, open_data("digits").train, tmp_path, views="two-sided")
    both = diagnose_spaces(found, loaded.encoder, "two-sided")
    assert list(both.reports) == ["representation", "embedding"]
    r, r_pos = found["representation"]
    alone = diagnose(r, r_pos, views="two-sided", space="representation")
    assert both.reports["representation"].as_values() == alone.as_values()
    # A linear projector's inputs tell why.
    assert both.reports["embedding"].conventions["augmentation_space"] == "last layer's inputs"
    json.dumps(both.as_values(), allow_nan=False)
    clean = embed(loaded, open_data("digits").train, tmp_path)
    assert diagnose_spaces(clean, loaded.encoder, "clean").reports["embedding"].ratios is None


def test_planted_collapse_of_a_projector_is_seen_in_the_embedding_alone(tmp_path, generator):
    # The projector kills 6 of 16 directions of an intact representation, for a reason that only its inputs know.
    backbone = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    backbone.num_features = 16
    projector = nn.Linear(16, 16, bias=False)
    u, v = (torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q for _ in range(2))
    with torch.no_grad():
        projector.weight.copy_(u @ torch.diag(torch.tensor([1.0] * 10 + [0.0] * 6)) @ v.T)
    recipe = small(preset="digits", data="digits", projector="linear")
    loaded = from_recipe(Encoder(backbone, projector), recipe, 1, tmp_path)
    images = HeldImages(
        torch.randint(0, 256, (3000, 1, 8, 8), dtype=torch.uint8, generator=generator),
        torch.zeros(3000).long(),
        "noise",
    )
    found = embed(loaded, images, tmp_path, views="two-sided")
    both = diagnose_spaces(found, loaded.encoder, "two-sided")
    assert [report.collapsed for report in both.reports.values()] == [0, 6]


@pytest.mark.parametrize(
    ("head", "pairs"),
    [
        ("mlp", [("backbone.layer4.0.conv2", "projector.0"), ("projector.0", "projector.3")]),
        ("linear", [("backbone.layer4.0.conv2", "projector")]),
        ("diagonal", [("backbone.layer4.0.conv2", "projector")]),
        ("low-rank", [("backbone.layer4.0.conv2", "projector")]),
        ("none", []),
        ("low-rank-diagonal", []),
        ("random-subvector", []),
    ],
)
def test_adjacent_layers_start_at_the_last_convolution(head, pairs):
    found = adjacent_layers(build_encoder(small(projector=head), 1))
    assert [(layer.first, layer.second) for layer in found] == pairs
    between = {layer.second: layer.between for layer in found}
    assert between.get("projector.3", "BatchNorm1d, ReLU") == "BatchNorm1d, ReLU"
    assert is_linear(build_encoder(small(projector=head), 1).projector) is (head == "linear")


def test_aligned_layers_are_seen():
    encoder = build_encoder(small(projector="linear", out_dim=128), 1)
    w1 = encoder.backbone.layer4[0].conv2.weight.detach().flatten(1).double()
    u, sigma, _ = torch.linalg.svd(w1, full_matrices=False)
    # Well apart, and read in their order by the projector.
    sigma = torch.linspace(8, 1, len(sigma), dtype=torch.float64) ** 2
    with torch.no_grad():
        _, _, vh = torch.linalg.svd(w1, full_matrices=False)
        encoder.backbone.layer4[0].conv2.weight.copy_((u * sigma @ vh).view(128, 128, 3, 3))
        encoder.projector.weight.copy_(torch.diag(sigma) @ u.T)
    (layer,) = adjacent_layers(encoder)
    assert layer.alignment.pattern == "aligned"
    assert layer.as_values()["alignment"] > 0.999


@pytest.mark.parametrize(
    ("layers", "width"),
    [
        ([nn.Linear(8, 16)], 8),
        ([nn.Linear(8, 4), nn.Linear(4, 16)], 4),
        ([nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 16), nn.BatchNorm1d(16)], 4),
        ([nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 12), nn.Linear(12, 16)], 4),
        ([nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 16)], 12),
        ([nn.Linear(8, 16), nn.ReLU()], None),
        ([nn.Identity()], None),
    ],
)
def test_width_of_the_last_linear_layers(layers, width):
    assert narrowest_input(nn.Sequential(*layers)) == width
