"""Published models as encoders: what they say of themselves is followed, once it is checked."""

import json
import pickle
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from dyncollapse.bridge import Skipped, embed, load_encoder, open_data, sgd_probe
from dyncollapse.bridge.data.augmentations import normalise, plain
from dyncollapse.bridge.data.preparation import Preparation
from dyncollapse.bridge.models.published import is_published
from dyncollapse.commands.bridge import bridge

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 12]}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "fixed_input_size": True}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def publish(folder, arch="vit_tiny_patch16_224", arguments=VIT, *, classes=5, pixels=None, **config):
    """A tiny model with random weights in timm's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    weights = timm.create_model(arch, pretrained=False, num_classes=classes, **given).state_dict()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    pixels = {
        "input_size": [3, 32, 32],
        "num_classes": classes,
        "crop_pct": 0.9,
        **(HALF if pixels is None else pixels),
    }
    content = {
        "architecture": arch,
        "num_classes": classes,
        "model_args": arguments,
        "pretrained_cfg": pixels,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def photos(folder, size=(47, 35), count=4):
    """Photos as timm's transform takes them without resizing: the shorter side is the image side over `crop_pct`."""
    generator = np.random.default_rng(0)
    for number in range(count):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def by_timm(folder, images):
    """What timm's own model makes of the pixels of its own transform."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model.reset_classifier(0)
    transform = create_transform(**resolve_model_data_config(model))
    with torch.no_grad():
        return model(torch.stack([transform(Image.open(path)) for path in images]))


@pytest.mark.parametrize(
    ("arch", "arguments", "pixels"),
    [
        ("vit_tiny_patch16_224", VIT, HALF),
        ("resnet18", RESNET, {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear"}),
        ("resnet18", RESNET, {}),
    ],
)
def test_rows_are_those_of_timm_on_its_own_pixels(tmp_path, arch, arguments, pixels):
    folder, images = publish(tmp_path / "model", arch, arguments, pixels=pixels), photos(tmp_path / "photos")
    loaded = load_encoder(folder)
    data = open_data(str(images)).train
    embedded = embed(loaded, data, tmp_path)  # without a projector, the representation alone
    torch.testing.assert_close(embedded["representation"][0], by_timm(folder, data.paths), rtol=1e-4, atol=1e-5)
    classes = "the classifier of 5 classes left out); no projector"
    assert classes in loaded.matched
    assert not loaded.has_embedding
    record = json.loads((tmp_path / "embed.json").read_text())
    assert record["published"]["architecture"] == record["encoder"]["arch"] == arch
    assert record["encoder"]["prepared"]["mean"] == pixels.get("mean", [0.485, 0.456, 0.406])


def test_resizing_and_squashing_are_those_of_timm(tmp_path):
    cases = (
        ("s", "squash", "bicubic", (90, 61), 1.01),
        ("long", "squash", "bicubic", (240, 12), 1.01),
        ("c", "center", "bilinear", (90, 61), 1.01),
        ("n", "center", "nearest", (80, 160), 0.01),
    )
    for name, mode, interpolation, (height, width), most in cases:
        pixels = {**HALF, "crop_mode": mode, "interpolation": interpolation, "crop_pct": 0.8}
        folder = publish(tmp_path / name, pixels=pixels)
        model = timm.create_model(f"local-dir:{folder}", pretrained=False)
        rows, columns = np.mgrid[:height, :width]
        waves = np.stack([np.sin(rows / 15), np.sin(columns / 9), np.cos((rows + columns) / 20)], -1)
        image = np.rint(127.5 + 100 * waves).astype(np.uint8)  # smooth: Pillow and torchvision round noise differently
        theirs = create_transform(**resolve_model_data_config(model))(Image.fromarray(image))
        prepared = load_encoder(folder).spec.prepared
        image = torch.from_numpy(image).permute(2, 0, 1)
        ours = normalise(plain(image, 32, prepared).unsqueeze(0), prepared)[0]
        levels = ((ours - theirs).abs() * 255 / 2).max()  # half of the deviation is one of 255 levels
        assert levels < most, name


def test_every_view_is_normalised_as_the_model_says(tmp_path):
    """Augmented views too, in `embed` and in the probe by SGD: with deviation 1e-3 features are far from the usual."""
    folder, images = publish(tmp_path / "model"), open_data(str(photos(tmp_path / "photos"))).train
    seen = []
    loaded = load_encoder(folder)
    loaded.encoder.backbone.register_forward_pre_hook(lambda _part, given: seen.append(given[0].abs().amax()))
    embed(loaded, images, tmp_path, spaces=("representation",), views="two-sided")
    sgd_probe(loaded, images, images, epochs=1, skipped=Skipped(images))
    levels = [level for level in seen if not level.is_meta]  # shapes alone count the memory of a batch
    assert len(levels) > 3
    assert max(levels) <= 1  # ImageNet's constants reach 2.6


def test_d0_size_and_views_may_be_given_and_nothing_else(tmp_path):
    folder = publish(tmp_path / "model")
    loaded = load_encoder(str(folder), d0=7, image_size=64, augment="cifar")
    r, z = loaded.encoder(torch.zeros(2, 3, 64, 64))
    assert (r.shape, z.shape, loaded.spec.augment) == ((2, 24), (2, 7), "cifar")
    assert any("timm resampled pos_embed from (1, 17, 24) to (1, 65, 24)" in one for one in loaded.assumptions)
    for given in ({"arch": "resnet18"}, {"stem": "cifar"}, {"renames": {"a": "b"}}, {"trust": True}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}: .* is a published model"):
            load_encoder(folder, **given)
    with pytest.raises(ValueError, match=r"d0 is 25, but .* 24 dimensions"):
        load_encoder(folder, d0=25)
    with pytest.raises(ValueError, match=r"image_size is 33.* patches of 8 pixels"):
        load_encoder(folder, image_size=33)


def test_one_channel_takes_the_average_of_three(tmp_path):
    arguments = {**VIT, "in_chans": 1}
    folder = publish(tmp_path / "grey", arguments=arguments, pixels={"fixed_input_size": True})
    loaded = load_encoder(folder)
    assert loaded.channels == 1
    assert loaded.spec.prepared.mean == pytest.approx((0.449,))
    assert "averages" in loaded.assumptions[0]


def test_weights_of_torch_save_are_read_and_nothing_is_unpickled(tmp_path):
    folder = publish(tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_encoder(folder).published.file == "pytorch_model.bin"
    for name in ("pytorch_model.bin", "model.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Path(tmp_path / "touched").touch))
        with pytest.raises(ValueError, match=name):
            load_encoder(folder)
    assert not (tmp_path / "touched").exists()


def in_cache(monkeypatch, cache, repository, *, offline=True):
    """The snapshot of a repository in a cache of the hub, which cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    return place / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_model_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch, revision):
    publish(in_cache(monkeypatch, tmp_path, "org/tiny"))
    loaded = load_encoder(f"hf-hub:org/tiny{revision}")
    assert (loaded.published.repository, loaded.published.commit) == ("org/tiny", COMMIT)
    assert f"commit {COMMIT[:7]}" in loaded.matched
    assert str(loaded.path) == f"hf-hub:org/tiny{revision}"


def test_a_model_of_timm_is_read_from_the_cache(tmp_path, monkeypatch):
    snapshot = in_cache(monkeypatch, tmp_path, "timm/test_vit.r160_in1k")
    publish(snapshot, "test_vit", {}, classes=1000)
    (snapshot / "config.json").unlink()  # timm's list describes it
    for name in ("timm/test_vit", Path("timm/test_vit.r160_in1k")):
        loaded = load_encoder(name)
        assert (loaded.published.tag, loaded.spec.image_size, loaded.published.classes) == ("r160_in1k", 160, 1000)
        assert loaded.spec.prepared == Preparation((0.5,) * 3, (0.5,) * 3, 0.95, "bicubic")


def test_what_is_not_in_the_cache_is_one_line_without_a_network(tmp_path, monkeypatch):
    in_cache(monkeypatch, tmp_path, "org/other")
    for name in ("hf-hub:org/tiny", "timm/test_vit"):
        with pytest.raises(
            ValueError, match=r"not in .* and cannot be downloaded .* local folder .* hf download"
        ) as raised:
            load_encoder(name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/nosuch", "no model of the installed timm"),
        ("timm/resnet18.nosuch", "does not exist; give timm/resnet18.a1_in1k"),
        ("timm/gcvit_base", "is not on the Hugging Face hub; download https"),
        ("hf-hub:", "names no repository"),
        ("hf-hub:a/b/c", "names no repository"),
        ("hf-hub:org/..", "names no repository"),
        ("hf-hub:org/model@", "names no repository"),
        ("local-dir:", "no config.json"),
        ("local-dir:nosuch", "is no folder"),
        ("nosuch", "does not exist; give a checkpoint, the folder of a run, or timm/NAME"),
    ],
)
def test_names_of_nothing_are_refused_in_one_line(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words) as raised:
        load_encoder(name)
    assert "\n" not in str(raised.value)


def test_files_and_folders_come_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_published("timm/x")
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "x").write_bytes(b"")
    assert not is_published("timm/x")
    publish(tmp_path / "timm" / "resnet18")
    assert load_encoder("timm/resnet18").spec.arch == "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": 3}, "Expected 'str'"),
        ({"architecture": None}, "Expected 'str'"),
        ({"architecture": "nosuch"}, "no architecture 'nosuch'"),
        ({"architecture": "hf-hub:org/evil"}, "no architecture"),
        ({"pretrained_cfg": []}, "Expected 'object"),
        ({"pretrained_cfg": {**HALF, "mean": [0.5, 0.5, 0.5, 0.5]}}, "Expected 'array' of length <= 3"),
        ({"pretrained_cfg": {**HALF, "std": [0, 0, 0]}}, "0.001"),
        ({"pretrained_cfg": {**HALF, "crop_pct": 1e-9}}, "0.1"),
        ({"pretrained_cfg": {**HALF, "input_size": [3, 32]}}, "length >= 3"),
        ({"pretrained_cfg": {**HALF, "input_size": [3, 10**9, 10**9]}}, "4096"),
        ({"model_args": {**VIT, "img_size": [32, 48]}}, "32 x 48 pixels; squares"),
        ({"model_args": {**VIT, "in_chans": 4}}, "4 channels"),
        ({"model_args": {**VIT, "in_chans": "3"}}, "channels"),
        ({"model_args": {**VIT, "depth": 30000}}, "more layers than its weights"),
        ({"model_args": {**VIT, "depth": 10**12}}, "larger than"),
        ({"model_args": {**VIT, "embed_dim": 30000}}, "tensors matched|GiB of memory"),
        ({"model_args": {**VIT, "checkpoint_path": "/etc/passwd"}}, "no argument of a network"),
        ({"model_args": {**VIT, "pretrained": True}}, "no argument of a network"),
        ({"model_args": {**VIT, "nosuch": 1}}, "timm cannot build"),
        ({"model_args": {**VIT, "norm_layer": {"a": 1}}}, "no number, word or short list"),
        ({"model_args": {**VIT, "global_pool": ""}}, "published without pooling"),
        ({"model_args": {**VIT, "embed_dim": 48}}, "tensors matched"),
        ({"model_args": {**VIT, "depth": 2}}, "is missing"),
    ],
)
def test_descriptions_are_checked_before_they_are_believed(tmp_path, changes, words):
    folder = publish(tmp_path / "model", **changes)
    with pytest.raises(ValueError, match=words) as raised:
        load_encoder(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"architecture": "vit_tiny_patch16_224", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"architecture": NaN}', "holds NaN"),
        ("[1]", "Expected 'object'"),
        ('"\\u001b[31m"', "Expected 'object'"),
        ('{"model_type": "dinov2"}', "library transformers .*timm/vit_small_patch14_dinov2.lvd142m"),
        ('{"architectures": ["Own"], "model_type": ["x"]}', "library transformers, which"),
        ("{}", "it has no architecture"),
    ],
)
def test_files_that_are_no_description_are_refused(tmp_path, text, words):
    folder = publish(tmp_path / "model")
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words) as raised:
        load_encoder(folder)
    assert str(raised.value).isprintable()


def test_tensors_that_are_missing_left_over_or_of_another_shape_are_refused(tmp_path):
    folder = publish(tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = "blocks.0.attn.qkv.weight"
    nan = {**weights, name: torch.full_like(weights[name], float("nan"))}
    for content, words in (
        ({one: tensor for one, tensor in weights.items() if one != name}, f"{name} is missing"),
        ({**weights, name: torch.zeros(2, 2)}, rf"{name} has shape \(2, 2\)"),
        ({**weights, "blocks.1.norm1.weight": torch.zeros(24)}, "has 1 more, such as blocks.1.norm1.weight"),
        (nan, f"{name} holds NaN"),
        ({}, "tensors matched|more layers"),
    ):
        safetensors.torch.save_file(content, folder / "model.safetensors")
        with pytest.raises(ValueError, match=words):
            load_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model.safetensors or pytorch_model.bin"):
        load_encoder(folder)


def test_commands_take_a_model_without_an_option_and_save_what_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "model")
    photos(tmp_path / "photos", count=8)
    saved = CliRunner().invoke(bridge, ["embed", "model", "--data", "photos", "--out", "z"])
    assert saved.exit_code == 0, saved.output
    assert {path.name for path in (tmp_path / "z").iterdir()} == {"representation.npy", "labels.npy", "embed.json"}
    asked = CliRunner().invoke(bridge, ["embed", "model", "--data", "photos", "--space", "both"])
    assert (asked.exit_code, "no recognised projector" in asked.stderr) == (2, True)
    found = CliRunner().invoke(bridge, ["diagnose", "model", "--data", "photos", "--out", "d", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["spaces"].keys() == {"representation"}
    record = json.loads((tmp_path / "d" / "diagnosis.json").read_text())["config"]
    assert (record["checkpoint"], record["published"]["file"]) == ("model", "model.safetensors")
