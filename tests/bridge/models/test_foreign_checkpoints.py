"""Encoders of others: one synthetic file for each layout, and what is said where a file does not fit."""

import argparse
import contextlib
import math
import pickle
import re
import sys
import time
import types

import pytest
import torch
from helpers.bridge import ALONE, three_steps
from helpers.foreign_layouts import ARCH, LAYOUTS, NARROW, TWO, backbone, own_names, projector, under
from safetensors.torch import save_file
from torch import nn

from dyncollapse.bridge import load_encoder, pretrain
from dyncollapse.bridge.models.backbones import build_backbone
from dyncollapse.bridge.models.foreign_checkpoints import Hints, find_encoder
from dyncollapse.bridge.models.foreign_names import WRAPPERS, find_places, unwrapped


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_gives_the_whole_backbone_and_its_projector(layout, tmp_path):
    make, head, stem = LAYOUTS[layout]
    b = backbone(stem=stem, arch=NARROW)
    content = make(b)
    path = tmp_path / "checkpoint.pth"
    torch.save({**content, "args": argparse.Namespace(lr=0.1)} if layout == "barlow-twins" else content, path)
    loaded = load_encoder(path, arch=NARROW)
    assert loaded.matched.startswith("65 of 65 tensors matched (resnet10-narrow, stem ")
    assert (loaded.spec.stem, loaded.channels, loaded.has_embedding) == (stem, 3, head is not None)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        r, z = loaded.encoder(images)
        assert torch.equal(r, b(images))
        if head is not None:
            assert torch.equal(z, head(b(images)))


def test_backbone_is_found_out_and_safetensors_are_read(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(under("trunk.", backbone()), path)
    loaded = load_encoder(path)
    assert (loaded.spec.arch, loaded.spec.image_size, loaded.spec.augment) == (ARCH, 224, "imagenet")
    assert not loaded.has_embedding
    assert "prefix trunk." in loaded.matched
    assert "no recognised projector" in loaded.matched


def test_no_weights_are_drawn_that_the_file_replaces(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_file(under("", backbone()), path)
    before = torch.random.get_rng_state()
    assert not load_encoder(path).has_embedding
    assert torch.equal(torch.random.get_rng_state(), before)


def test_small_stems_say_how_large_their_images_are(tmp_path):
    path = tmp_path / "encoder.pt"
    torch.save(under("", backbone(stem="cifar", channels=1)), path)
    loaded = load_encoder(path, arch=ARCH, image_size=28)
    assert (loaded.spec.image_size, loaded.spec.augment, loaded.channels) == (28, "cifar", 1)


def test_directclr_by_others_keeps_d0_dimensions(tmp_path):
    path = tmp_path / "encoder.pt"
    torch.save({"model": under("module.backbone.", backbone())}, path)
    loaded = load_encoder(path, arch=ARCH, d0=90)
    with torch.no_grad():
        r, z = loaded.encoder(torch.zeros(1, 3, 32, 32))
    assert torch.equal(z, r[:, :90])
    with pytest.raises(ValueError, match="d0 is 513, but resnet18 gives representations of 512"):
        load_encoder(path, arch=ARCH, d0=513)


def test_prefix_map_names_the_copy_that_is_wanted(tmp_path):
    path, teacher, student = tmp_path / "dino.pt", backbone(1, arch=NARROW), backbone(2, arch=NARROW)
    torch.save({"teacher": under("net.", teacher), "student": under("net.", student)}, path)
    assert torch.equal(load_encoder(path, arch=NARROW).encoder.backbone.conv1.weight, teacher.conv1.weight)
    loaded = load_encoder(path, arch=NARROW, renames={"teacher.net.": "unused.", "student.net.": "backbone."})
    assert loaded.matched.startswith("65 of 65")
    renamed = load_encoder(path, arch=NARROW, renames={"teacher.net.layer": "unused."})
    assert torch.equal(renamed.encoder.backbone.conv1.weight, student.conv1.weight)
    with pytest.raises(
        ValueError, match=r"renames encoder\. begins no name in the file; its names are like teacher\.net"
    ):
        load_encoder(path, renames={"encoder.": "backbone."})


def other(content, tmp_path, **options):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        load_encoder(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_backbone_with_a_part_missing_is_refused_with_the_count(tmp_path):
    tensors = under("module.backbone.", backbone())
    del tensors["module.backbone.layer3.1.conv2.weight"]
    told = other(tensors, tmp_path, arch=ARCH)
    assert "99 of 100 tensors matched" in told
    assert "layer3.1.conv2.weight is missing" in told
    wrong = under("", backbone()) | {"bn1.weight": torch.ones(3)}
    assert "99 of 100 tensors matched" in other(wrong, tmp_path, arch=ARCH)
    assert "bn1.weight has shape (3,), not (64,)" in other(wrong, tmp_path, arch=ARCH)


def test_other_architecture_says_what_does_not_fit(tmp_path):
    told = other(under("", backbone()), tmp_path, arch="resnet50")
    assert re.search(r"\d+ of 265 tensors matched .*; give arch, stem or renames", told)
    assert "0 of vit_tiny_patch16_224's tensors" in other(under("", backbone()), tmp_path, arch="vit_tiny_patch16_224")
    assert "conv1.weight has shape (64, 3, 7, 7), not (64, 3, 3, 3)" in other(
        under("", backbone()), tmp_path, arch=ARCH, stem="cifar"
    )


@pytest.mark.parametrize(
    ("content", "words"), [({"epoch": 3}, "holds no tensors"), ({"w": torch.ones(2)}, "its names are like w")]
)
def test_file_without_an_encoder_is_refused(content, words, tmp_path):
    assert words in other(content, tmp_path)


class Custom:
    """What torch does not load from an untrusted file."""


def test_unknown_pickle_is_named_and_loaded_only_if_trusted(tmp_path):
    content = {"config": Custom(), "model": under("", backbone(arch=NARROW))}
    told = other(content, tmp_path, arch=NARROW)
    assert "Custom" in told
    assert told.endswith("add trust")
    loaded = load_encoder(tmp_path / "odd.pth", arch=NARROW, trust=True)
    assert loaded.matched.startswith("65 of 65")


def test_code_that_is_not_here_is_named_and_the_file_not_blamed(tmp_path, monkeypatch):
    package = types.ModuleType("somepkg")
    package.Settings = type("Settings", (dict,), {"__module__": "somepkg", "__qualname__": "Settings"})
    monkeypatch.setitem(sys.modules, "somepkg", package)
    content = {"model": under("", backbone()), "settings": package.Settings()}
    torch.save(content, tmp_path / "odd.pth")
    monkeypatch.delitem(sys.modules, "somepkg")
    with pytest.raises(ValueError, match=r"not installed: the module somepkg; .* save the state_dict"):
        load_encoder(tmp_path / "odd.pth", trust=True)
    monkeypatch.setitem(sys.modules, "somepkg", types.ModuleType("somepkg"))
    with pytest.raises(ValueError, match=r"the class Settings of the module somepkg; where it is installed") as error:
        load_encoder(tmp_path / "odd.pth", trust=True)
    assert "damaged" not in str(error.value)
    assert "torch.save(model.state_dict(), FILE)" in str(error.value)
    content["settings"].__class__.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "Settings", package.Settings, raising=False)
    torch.save(content, tmp_path / "script.pth")
    monkeypatch.delattr(sys.modules["__main__"], "Settings")
    with pytest.raises(ValueError, match="the class Settings of the script that saved it"):
        load_encoder(tmp_path / "script.pth", trust=True)


@pytest.mark.parametrize(
    ("kind", "trust"),
    [("half", False), ("double", False), ("bfloat16", False), ("Parameter", False), ("numpy", True)],
)
def test_other_kinds_of_arrays_are_read(kind, trust, tmp_path):
    b = backbone(arch=NARROW)
    convert = {"Parameter": lambda t: nn.Parameter(t), "numpy": lambda t: t.numpy()}
    floats = {n: t for n, t in b.state_dict().items() if t.is_floating_point()}
    torch.save({n: convert.get(kind, lambda t: getattr(t, kind)())(t) for n, t in floats.items()}, tmp_path / "a.pt")
    loaded = load_encoder(tmp_path / "a.pt", arch=NARROW, trust=trust)
    for name, value in loaded.encoder.backbone.state_dict().items():
        if name in floats:
            assert torch.equal(
                value, getattr(floats[name], kind)().float() if "loat16" in kind or kind == "half" else floats[name]
            )


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinity")])
@pytest.mark.parametrize("name", ["backbone.layer2.0.bn1.running_var", "projector.2.bias"])
def test_weights_that_are_not_finite_are_refused_by_name(value, word, name, tmp_path):
    tensors = under("backbone.", backbone(arch=NARROW)) | under("projector.", TWO)
    tensors[name] = tensors[name].clone()
    tensors[name][3] = value
    torch.save(tensors, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=f"{re.escape(name)} holds {word}; take an earlier checkpoint"):
        load_encoder(tmp_path / "nan.pt", arch=NARROW)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_tensors_of_no_weights_need_not_be_finite(value, tmp_path):
    unused = under("backbone.", backbone(arch=NARROW)) | {"queue": torch.full((3,), value)}
    torch.save(unused, tmp_path / "unused.pt")
    assert load_encoder(tmp_path / "unused.pt", arch=NARROW).matched.startswith("65 of 65")


@pytest.mark.parametrize("depth", range(4))
def test_words_of_wrappers_do_not_hide_a_backbone(depth):
    for word in WRAPPERS:
        tensors = {}
        for name, value in under("", backbone()).items():
            parts = f"backbone.{name}".split(".")
            parts.insert(min(depth, len(parts) - 1), word)
            tensors[".".join(parts)] = value
        (place, *_) = find_places(unwrapped(tensors.items()), [ARCH], None)
        assert (place.prefix, place.rank[0]) == ("backbone.", 0)


@pytest.mark.parametrize("name", ["p{}.conv1.weight", "0.{}.0.weight", "conv1.weight.{}", "projector.{}.weight"])
def test_many_names_take_no_time(name):
    tensors = {name.format(k): torch.ones(1) for k in range(30_000)} | under("", backbone())
    start = time.process_time()
    with contextlib.suppress(ValueError):
        find_encoder(tensors.items(), "file", Hints(ARCH))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_channels_that_no_image_has_are_refused(channels):
    tensors = under("", backbone()) | {"conv1.weight": torch.ones(64, channels, 7, 7)}
    with pytest.raises(ValueError, match=f"the first filters take {channels} channels; images have 1 or 3 here"):
        find_encoder(tensors.items(), "file", Hints(ARCH))


def test_copies_are_announced(tmp_path):
    tensors = under("student.", backbone(1, arch=NARROW)) | under("teacher.", backbone(2, arch=NARROW))
    torch.save(tensors, tmp_path / "two.pt")
    loaded = load_encoder(tmp_path / "two.pt", arch=NARROW)
    assert (
        "Of 2 copies of the backbone, that under teacher. is taken; `renames` teacher.=unused leaves it out, and then "
        "that under student. is taken."
    ) in loaded.assumptions


PAIRS = [
    ("model.online.trunk.", "model.target.trunk."),
    ("teacher.", "student."),
    ("", "ema."),
    ("backbone.", "ema.backbone."),
    ("encoder.", "encoder.copy."),
    ("backbone.", "backbone_momentum."),
    ("net.a.", "net.ab."),
]


@pytest.mark.parametrize("names", [None, own_names])
@pytest.mark.parametrize("prefixes", PAIRS)
def test_the_rename_that_is_announced_takes_the_other_copy(prefixes, names, tmp_path):
    # A small backbone: prefixes are told apart by names alone.
    arch = "resnet10-narrow"
    originals = [backbone(seed, arch=arch) for seed in (1, 2)]
    copies = [names(original) if names else under("", original) for original in originals]
    tensors = {p + name: tensor for p, copy in zip(prefixes, copies, strict=True) for name, tensor in copy.items()}
    torch.save(tensors, tmp_path / "two.pt")
    loaded = load_encoder(tmp_path / "two.pt", arch=arch)
    (said,) = [text for text in loaded.assumptions if text.startswith("Of 2 copies")]
    old, new = re.search(r"`renames` (\S+)=(\S+) leaves it out", said).groups()
    other = load_encoder(tmp_path / "two.pt", arch=arch, renames={old: new})
    assert not any("copies" in text for text in other.assumptions)
    first, second = (one.encoder.backbone.conv1.weight for one in (loaded, other))
    assert [torch.equal(first, original.conv1.weight) for original in originals] == [True, False]
    assert [torch.equal(second, original.conv1.weight) for original in originals] == [False, True]


def test_renames_that_join_two_copies_are_refused(tmp_path):
    torch.save(under("model.online.", backbone(1)) | under("model.target.", backbone(2)), tmp_path / "two.pt")
    with pytest.raises(
        ValueError,
        match=r"renames would give model\.online\.conv1\.weight and model\.target\.conv1\.weight one name",
    ):
        load_encoder(tmp_path / "two.pt", arch=ARCH, renames={"model.target": "model.online"})


def test_two_paths_of_one_name_are_refused(tmp_path):
    content = {"net": under("", backbone())} | {"net.conv1.weight": torch.ones(64, 3, 7, 7)}
    assert "holds two tensors under one name, net.conv1.weight" in other(content, tmp_path)


@pytest.mark.parametrize("arch", [None, "resnet10-narrow", "vit_tiny_patch16_224"])
def test_file_without_convolutions_holds_no_image_backbone(arch, tmp_path):
    layers = {f"bn{k}": nn.BatchNorm1d(8) for k in range(3)} | {f"fc{k}": nn.Linear(8, 8) for k in range(3)}
    told = other(nn.ModuleDict(layers).state_dict(), tmp_path, arch=arch)
    assert "holds no image backbone: none of its tensors is a convolution's; its names are like bn0.weight" in told
    assert told.endswith("save the embeddings as .npy and use dyncollapse diagnose FILE")


def test_layers_of_other_copies_of_a_transformer_are_no_projectors(tmp_path):
    vit = build_backbone("vit_tiny_patch16_224", "imagenet", 3)
    head = {f"student.ssl.{name}": tensor for name, tensor in projector(*"lrl", dim=192).state_dict().items()}
    torch.save(under("student.backbone.", vit) | head | under("teacher.backbone.", vit), tmp_path / "vit.pt")
    (said,) = load_encoder(tmp_path / "vit.pt", arch="vit_tiny_patch16_224").left_out
    assert said.startswith("student.ssl (Linear 192-32, relu, Linear 32-32) is left out")


def test_pickled_module_is_read_if_trusted(tmp_path):
    torch.save(backbone(arch=NARROW), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="add trust"):
        load_encoder(tmp_path / "whole.pt", arch=NARROW)
    assert load_encoder(tmp_path / "whole.pt", arch=NARROW, trust=True).matched.startswith("65 of 65")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half a zip", pickle.dumps({"a": 1})])
def test_damaged_file_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        load_encoder(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="does not exist"):
        load_encoder(tmp_path / "none.pt")


def test_ours_know_their_own(tmp_path):
    encoder = pretrain(three_steps(projector="linear"), tmp_path, ALONE)
    loaded = load_encoder(tmp_path)
    assert (loaded.step, loaded.run, loaded.recipe.projector) == (3, tmp_path, "linear")
    state = loaded.encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    file = next((tmp_path / "checkpoints").iterdir())
    assert load_encoder(file).run == tmp_path
    with pytest.raises(ValueError, match=r"arch: .* was saved by dyncollapse and stores its own settings"):
        load_encoder(file, arch=ARCH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no checkpoints/"):
        load_encoder(tmp_path / "empty")
