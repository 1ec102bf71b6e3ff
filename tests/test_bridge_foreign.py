"""Encoders of others: one synthetic file for each layout, and what is said where a file does not fit."""

import argparse
import pickle
import re

import pytest
import torch
from bridge_helpers import ALONE, small
from safetensors.torch import save_file
from torch import nn

from dyncollapse.bridge import load_encoder, pretrain
from dyncollapse.bridge.encoders import build_backbone

ARCH = "resnet18"
CHILDREN = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "014567", strict=True))
FLAT = dict(zip(CHILDREN, "012345", strict=True))


def backbone(seed=0, stem="imagenet", channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_backbone(ARCH, stem, channels)
        for parameter in module.parameters():  # zeros and ones would match each other
            nn.init.normal_(parameter, std=0.05)
    return module.eval()


def projector(*kinds, dim=512, seed=1):
    """Layers by letters: l(inear with bias), w (without), b(atch norm), n(orm without gain), r(elu)."""
    layers, width = [], dim
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for kind in kinds:
            if kind in "lw":
                layers.append(nn.Linear(width, 32, bias=kind == "l"))
                width = 32
            else:
                layers.append(
                    {"b": nn.BatchNorm1d(width), "n": nn.BatchNorm1d(width, affine=False), "r": nn.ReLU()}[kind]
                )
    return nn.Sequential(*layers).eval()


def under(prefix, module, names=None):
    """A module's state below a prefix, with parts renamed."""
    found = {}
    for name, value in module.state_dict().items():
        part, dot, rest = name.partition(".")
        found[prefix + (names or {}).get(part, part) + dot + rest] = value
    return found


def nested(path, tensors):
    for key in reversed(path.split("/")):
        tensors = {key: tensors}
    return tensors


MLP = projector(*"wbrwbrw")
TWO = projector(*"lrl")
# Layout: the file's content, the projector in it, the stem.
LAYOUTS = {
    "directclr": (
        lambda b: nested("model", under("module.backbone.", b) | under("module.projector.", MLP)),
        MLP,
        "imagenet",
    ),
    "barlow-twins": (
        lambda b: {
            "epoch": 9,
            "model": under("module.backbone.", b)
            | under("module.projector.", MLP)
            | under("module.bn.", projector("n", dim=32)),
        },
        MLP,
        "imagenet",
    ),
    "vicreg": (
        lambda b: {"model": under("module.backbone.", b) | under("module.projector.", MLP), "epoch": 1},
        MLP,
        "imagenet",
    ),
    "bare-torchvision": (lambda b: under("", b), None, "imagenet"),
    "torchvision-with-classifier": (
        lambda b: under("", b) | under("fc.", nn.Linear(512, 32)),
        nn.Linear(512, 32),
        "imagenet",
    ),
    "directclr-final": (lambda b: {"backbone": under("", b), "head": under("", MLP)}, MLP, "imagenet"),
    "directclr-spectrum": (lambda b: {"backbone": under("", b), "projector": under("", MLP)}, MLP, "imagenet"),
    "lightly": (
        lambda b: nested("state_dict", under("backbone.", b) | under("projection_head.layers.", MLP)),
        MLP,
        "imagenet",
    ),
    "lightly-children": (
        lambda b: nested("state_dict", under("backbone.", b, CHILDREN) | under("projection_head.layers.", TWO)),
        TWO,
        "imagenet",
    ),
    "lightly-cifar-children": (lambda b: nested("state_dict", under("backbone.", b, FLAT)), None, "cifar"),
    "solo-learn": (
        lambda b: {
            "pytorch-lightning_version": "2.1",
            "state_dict": under("backbone.", b) | under("projector.", TWO) | under("classifier.", nn.Linear(512, 10)),
        },
        TWO,
        "cifar-padding-2",
    ),
    "solo-learn-old": (
        lambda b: nested("state_dict", under("encoder.", b) | under("classifier.", nn.Linear(512, 10))),
        None,
        "cifar-padding-2",
    ),
    "mmselfsup": (
        lambda b: {
            "meta": {"epoch": 3},
            "state_dict": under("backbone.", b)
            | {f"neck.{n}": v for n, v in under("", projector(*"wbrw"), {"0": "fc0", "1": "bn0", "3": "fc1"}).items()},
        },
        projector(*"wbrw"),
        "imagenet",
    ),
    "vissl": (
        lambda b: nested(
            "classy_state_dict/base_model/model", {"trunk": under("_feature_blocks.", b), "heads": under("0.clf.", TWO)}
        ),
        TWO,
        "imagenet",
    ),
    "moco": (
        lambda b: nested(
            "state_dict",
            under("module.encoder_q.", b)
            | under("module.encoder_q.fc.", TWO)
            | under("module.encoder_k.", backbone(7))
            | {"module.queue": torch.zeros(32, 8)},
        ),
        TWO,
        "imagenet",
    ),
    "moco-v3": (
        lambda b: nested(
            "state_dict",
            under("module.momentum_encoder.", backbone(7))
            | under("module.base_encoder.", b)
            | under("module.base_encoder.fc.", projector(*"wbrwn")),
        ),
        projector(*"wbrwn"),
        "imagenet",
    ),
    "simsiam": (
        lambda b: nested(
            "state_dict",
            under("module.encoder.", b)
            | under("module.encoder.fc.", projector(*"wbrln"))
            | under("module.predictor.", TWO),
        ),
        projector(*"wbrln"),
        "imagenet",
    ),
    "dino": (
        lambda b: {
            "student": under("module.backbone.", backbone(7)),
            "teacher": under("backbone.", b) | under("head.mlp.", TWO),
        },
        None,
        "imagenet",
    ),
    "sthalles": (lambda b: nested("state_dict", under("backbone.", b) | under("backbone.fc.", TWO)), TWO, "imagenet"),
    "spijkervet": (lambda b: under("encoder.", b) | under("projector.", TWO), TWO, "imagenet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_gives_the_whole_backbone_and_its_projector(layout, tmp_path):
    make, head, stem = LAYOUTS[layout]
    b = backbone(stem=stem)
    content = make(b)
    if layout == "torchvision-with-classifier":
        head = nn.Sequential(nn.Linear(512, 32))
        head[0].load_state_dict({"weight": content["fc.weight"], "bias": content["fc.bias"]})
    path = tmp_path / "checkpoint.pth"
    torch.save({**content, "args": argparse.Namespace(lr=0.1)} if layout == "barlow-twins" else content, path)
    loaded = load_encoder(path, arch=ARCH)
    assert loaded.matched.startswith("100 of 100 tensors matched (resnet18, stem ")
    assert (loaded.recipe.stem, loaded.channels, loaded.has_embedding) == (stem, 3, head is not None)
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
    assert (loaded.recipe.arch, loaded.recipe.image_size, loaded.recipe.augment) == (ARCH, 224, "imagenet")
    assert not loaded.has_embedding
    assert "prefix trunk." in loaded.matched
    assert "no projector that is understood" in loaded.matched


def test_small_stems_say_how_large_their_images_are(tmp_path):
    path = tmp_path / "encoder.pt"
    torch.save(under("", backbone(stem="cifar", channels=1)), path)
    loaded = load_encoder(path, arch=ARCH, image_size=28)
    assert (loaded.recipe.image_size, loaded.recipe.augment, loaded.channels) == (28, "cifar", 1)


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
    path, teacher, student = tmp_path / "dino.pt", backbone(1), backbone(2)
    torch.save({"teacher": under("net.", teacher), "student": under("net.", student)}, path)
    assert torch.equal(load_encoder(path, arch=ARCH).encoder.backbone.conv1.weight, teacher.conv1.weight)
    loaded = load_encoder(path, arch=ARCH, renames={"teacher.net.": "unused.", "student.net.": "backbone."})
    assert loaded.matched.startswith("100 of 100")
    renamed = load_encoder(path, arch=ARCH, renames={"teacher.net.layer": "unused."})
    assert torch.equal(renamed.encoder.backbone.conv1.weight, student.conv1.weight)
    with pytest.raises(
        ValueError, match=r"--prefix-map encoder\. begins no name in the file; its names are like teacher\.net"
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
    assert re.search(r"\d+ of 265 tensors matched .*; give --arch, --stem or --prefix-map", told)
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
    content = {"config": Custom(), "model": under("", backbone())}
    told = other(content, tmp_path, arch=ARCH)
    assert "Custom" in told
    assert "--trust-checkpoint" in told
    loaded = load_encoder(tmp_path / "odd.pth", arch=ARCH, trust=True)
    assert loaded.matched.startswith("100 of 100")


def test_pickled_module_is_read_if_trusted(tmp_path):
    torch.save(backbone(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="--trust-checkpoint"):
        load_encoder(tmp_path / "whole.pt", arch=ARCH)
    assert load_encoder(tmp_path / "whole.pt", arch=ARCH, trust=True).matched.startswith("100 of 100")


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
    encoder = pretrain(small(batch_size=432, projector="linear"), tmp_path, ALONE)
    loaded = load_encoder(tmp_path)
    assert (loaded.step, loaded.run, loaded.recipe.projector) == (3, tmp_path, "linear")
    state = loaded.encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    file = next((tmp_path / "checkpoints").iterdir())
    assert load_encoder(file).run == tmp_path
    with pytest.raises(ValueError, match=r"--arch: .* is of dyncollapse and knows its own"):
        load_encoder(file, arch=ARCH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no checkpoints/"):
        load_encoder(tmp_path / "empty")
