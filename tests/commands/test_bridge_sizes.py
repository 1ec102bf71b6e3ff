"""Encoders of others of other sizes: vision transformers, larger and wider ResNets, and what of them is recorded."""

import json
from functools import partial

import pytest
import timm
import torch
from click.testing import CliRunner
from helpers.bridge import small, write_images
from helpers.programs import refused
from torch import nn
from torch.nn import functional

from dyncollapse.bridge import build_encoder, load_encoder
from dyncollapse.bridge.models.backbones import backbone_shapes, build_backbone
from dyncollapse.bridge.models.foreign_names import find_places
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.commands.main import main

pytestmark = pytest.mark.usefixtures("sketched")

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(VIT, num_classes=0).eval()
        nn.init.normal_(module.pos_embed, std=0.5)
    return module


@pytest.fixture(scope="module")
def dino(vit, tmp_path_factory):
    """A file as DINO leaves it."""
    path = tmp_path_factory.mktemp("dino") / "checkpoint.pth"
    torch.save({"teacher": {f"backbone.{name}": value for name, value in vit.state_dict().items()}}, path)
    return path


def images(side, count=2):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def bridge(*arguments):
    return CliRunner().invoke(main, ["bridge", *map(str, arguments)])


# --- Vision transformers


def test_size_is_that_of_the_table_of_positions(vit, dino):
    loaded = load_encoder(dino, arch=VIT)
    assert loaded.spec.image_size == 224
    assert any("224 x 224 pixels, the size of its position embeddings" in text for text in loaded.assumptions)
    with torch.no_grad():
        assert torch.equal(loaded.encoder.backbone(images(224)), vit(images(224)))


def test_vision_transformers_want_their_name(dino):
    with pytest.raises(ValueError, match="give arch, such as vit_tiny_patch16_224, or renames"):
        load_encoder(dino)


def test_positions_are_resampled_by_timm(vit, dino):
    loaded = load_encoder(dino, arch=VIT, image_size=96)
    expected = timm.create_model(VIT, num_classes=0, img_size=96).eval()
    expected.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(vit.state_dict()), expected))
    with torch.no_grad():
        torch.testing.assert_close(loaded.encoder.backbone(images(96)), expected(images(96)), rtol=0, atol=1e-6)
    assert "timm resampled pos_embed from (1, 197, 192) to (1, 37, 192)." in loaded.assumptions


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (100, "cuts images into patches of 16 pixels; give a multiple"),
        (8, "which vit_tiny_patch16_224 cannot take"),
        (0, "--image-size is 0; it must be between 4 and 4096 pixels"),
        (10**9, "--image-size is 1000000000; it must be between 4 and 4096 pixels"),
    ],
)
def test_size_that_cannot_be_is_refused_in_one_line(side, words, dino, tmp_path):
    line = refused(
        bridge(
            "embed", "--checkpoint", dino, "--arch", VIT, "--image-size", side, "--data", write_images(tmp_path / "i")
        )
    )
    assert words in line


def test_runs_of_ones_own_have_the_size_that_is_asked_for():
    recipe = small(preset="digits", data="digits", arch=VIT, image_size=32, stem="imagenet", augment="digits")
    encoder = build_encoder(recipe, 1).eval()
    assert encoder(torch.zeros(2, 1, 32, 32))[1].shape == (2, 64)
    with pytest.raises(ValueError, match="image_size is 30, but vit_tiny_patch16_224 cuts images into patches of 16"):
        build_encoder(small(data="digits", arch=VIT, image_size=30, stem="imagenet"), 1)


def test_dinov2_by_its_authors_names_is_translated_by_timm(tmp_path):
    arch = "vit_small_patch14_reg4_dinov2"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(arch, num_classes=0, depth=1, img_size=70).eval()
        state = dict(module.state_dict())
    assert state["pos_embed"].shape == (1, 25, 384)
    # Theirs has a position for the class token, which timm has added to the token, and another name for registers.
    first = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(1))
    theirs = {name: value for name, value in state.items() if name != "reg_token"}
    theirs |= {"pos_embed": torch.cat([first, state["pos_embed"]], 1), "register_tokens": state["reg_token"]}
    theirs |= {"cls_token": state["cls_token"] - first, "mask_token": torch.zeros(1, 384)}
    block = {name: value for name, value in state.items() if name.startswith("blocks.0.")}
    for depth in range(1, 12):
        theirs |= {name.replace("blocks.0.", f"blocks.{depth}."): value for name, value in block.items()}
    torch.save(theirs, tmp_path / "dinov2.pth")
    loaded = load_encoder(tmp_path / "dinov2.pth", arch=arch)
    assert loaded.spec.image_size == 70
    assert loaded.matched.startswith("175 of 175 tensors matched")
    assert any("timm's reader of this model translated" in text for text in loaded.assumptions)
    torch.testing.assert_close(loaded.encoder.backbone.cls_token, state["cls_token"])
    torch.testing.assert_close(loaded.encoder.backbone.pos_embed, state["pos_embed"])


def test_deeper_transformer_is_not_cut(vit, tmp_path):
    state = dict(vit.state_dict())
    state |= {name.replace("blocks.0.", "blocks.12."): value for name, value in state.items() if "blocks.0." in name}
    torch.save(state, tmp_path / "deep.pth")
    with pytest.raises(ValueError, match=r"it has 12 more, such as blocks\.12\.norm1\.weight, and so is another model"):
        load_encoder(tmp_path / "deep.pth", arch=VIT)


# --- Larger, wider and unnamed ResNets


@pytest.mark.parametrize(("arch", "smaller"), [("resnet34", "resnet18"), ("resnet101", "resnet50")])
def test_larger_resnet_is_not_read_as_a_smaller_one(arch, smaller):
    shapes = backbone_shapes(arch, "imagenet")
    tensors = {f"backbone.{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert find_places(tensors, ["resnet50", "resnet18", "resnet34", "resnet101"], None)[0].arch == arch
    (place, *_) = find_places(tensors, [smaller], None)
    assert (place.missing, len(place.extra)) == (0, len(shapes) - len(backbone_shapes(smaller, "imagenet")))


def normed(state, name, x):
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, var, weight, bias)


def resnet(state, x):
    """A ResNet of basic blocks from its state dict alone: the slow, obvious way."""
    x = functional.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(normed(state, "bn1", x).relu(), 3, 2, 1)
    blocks = sorted({name.rpartition(".conv1")[0] for name in state if ".conv1." in name})
    for block in blocks:
        down, stride = (
            f"{block}.downsample.0.weight",
            2 if block.endswith(".0") and not block.startswith("layer1") else 1,
        )
        y = functional.conv2d(x, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        y = functional.conv2d(normed(state, f"{block}.bn1", y).relu(), state[f"{block}.conv2.weight"], padding=1)
        y = normed(state, f"{block}.bn2", y)
        if down in state:
            x = normed(state, f"{block}.downsample.1", functional.conv2d(x, state[down], stride=stride))
        x = (x + y).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize("width", [1, 2])
def test_resnet_of_twice_the_width_is_read(width, tmp_path):
    arch = "resnet18" if width == 1 else "resnet18x2"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_backbone(arch, "imagenet", 3).state_dict()
    assert state["conv1.weight"].shape[0] == 64 * width
    torch.save({"model": {f"module.backbone.{name}": value for name, value in state.items()}}, tmp_path / "wide.pth")
    loaded = load_encoder(tmp_path / "wide.pth")
    assert loaded.spec.arch == arch
    with torch.no_grad():
        r = loaded.encoder.backbone(images(64))
        assert r.shape == (2, 512 * width)
        torch.testing.assert_close(r, resnet(state, images(64)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["hrnet_w18_small", "convnext_atto", "mobilenetv3_small_050", "resnet18d"])
def test_timms_own_models_are_read_with_their_own_first_layers(arch, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(arch).eval()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "own.pth")
    loaded = load_encoder(tmp_path / "own.pth", arch=arch)
    module.reset_classifier(0)
    with torch.no_grad():
        assert torch.equal(loaded.encoder.backbone(images(64)), module(images(64)))
    assert not loaded.has_embedding


def test_vicregs_wide_resnet50_has_its_sizes():
    shapes = backbone_shapes("resnet50x2", "imagenet")
    assert shapes["conv1.weight"] == (128, 3, 7, 7)
    assert shapes["layer1.0.conv1.weight"] == (128, 128, 1, 1)
    assert shapes["layer1.0.downsample.0.weight"] == (512, 128, 1, 1)
    assert shapes["layer4.2.conv3.weight"] == (4096, 1024, 1, 1)


def test_list_of_children_without_pooling_but_with_large_filters_is_refused(tmp_path):
    numbers = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "013456", strict=True))
    state = build_backbone("resnet18", "imagenet", 3).state_dict()
    named = {f"f.{numbers[n.partition('.')[0]]}.{n.partition('.')[2]}": value for n, value in state.items()}
    torch.save(named, tmp_path / "f.pth")
    with pytest.raises(ValueError, match="first filters of 7 x 7 without the max-pooling"):
        load_encoder(tmp_path / "f.pth")


# --- What is recorded


def test_record_of_an_encoder_by_others_holds_no_recipe(tmp_path):
    head = nn.Sequential(nn.Linear(128, 8), nn.Tanh(), nn.Linear(8, 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("resnet10-narrow", "cifar", 3)
    state = {f"backbone.{n}": t for n, t in backbone.state_dict().items()}
    state |= {f"projection_head.{n}": t for n, t in head.state_dict().items()} | {
        f"fc.{n}": t for n, t in nn.Linear(128, 9).state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    common = ["--checkpoint", tmp_path / "other.ckpt", "--data", write_images(tmp_path / "photos", 10)]
    common += ["--arch", "resnet10-narrow"]
    result = bridge("embed", *common, "--out", tmp_path / "z", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "z" / "embed.json").read_text())
    assert record["recipe"] is None
    known = {"arch": "resnet10-narrow", "stem": "cifar", "image_size": 32, "augment": "cifar", "channels": 3}
    assert record["encoder"] == known | {"crop_scale": None, "colour": 1.0}
    assert set(record) <= {"checkpoint", "step", "matched", "encoder", "recipe", "assumptions"} | {
        "views",
        "seed",
        "rows",
        "skipped",
        "files",
    }
    said = " ".join(record["assumptions"])
    for words in (
        "relu between its layers 0 and 2",
        "3 x 3",
        "32 x 32 pixels",
        "ImageNet's mean",
        "views are those of cifar",
    ):
        assert words in said
    assert "fc, one linear layer from 128 to 9 dimensions, is left out" in said
    assert json.loads(result.stdout)["assumptions"] == record["assumptions"]

    result = bridge("diagnose", *common, "--out", tmp_path / "d", "--projector-activation", "tanh", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "tanh between its layers 0 and 2, as --projector-activation says." in " ".join(found["assumptions"])
    assert json.loads((tmp_path / "d" / "diagnosis.json").read_text())["assumptions"] == found["assumptions"]
    for text in found["assumptions"]:
        assert f"assumed: {text}" in result.stderr
    page = (tmp_path / "d" / "embedding" / "report.html").read_text()
    assert page.count("Assumed: ") == len(found["assumptions"])


def test_own_checkpoints_take_none_of_these_options(tmp_path):
    assert (
        bridge("pretrain", "--data", "digits", "--epochs", 1, "--no-tensorboard", "--out", tmp_path / "run").exit_code
        == 0
    )
    loaded = load_encoder(tmp_path / "run")
    assert isinstance(loaded.recipe, Recipe)
    assert loaded.assumptions == ()
    assert loaded.as_record()["recipe"]["optimiser"] == "sgd"
    refuse = partial(bridge, "embed", "--checkpoint", tmp_path / "run")
    for options in (
        ["--d0", 8],
        ["--projector-prefix", "x"],
        ["--projector-activation", "gelu"],
        ["--projector-last", "relu"],
    ):
        assert f"{options[0]}: {tmp_path / 'run'}" in refused(refuse(*options))
