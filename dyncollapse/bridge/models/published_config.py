"""What a published model says of itself: architecture, classes, image size, pixels; from timm's list or config.json."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_args

from msgspec import Meta

from dyncollapse.bridge.data.augmentations import COLOURS
from dyncollapse.bridge.data.preparation import Interpolation, Preparation
from dyncollapse.bridge.recipe import NARROWEST_IMAGE, WIDEST_IMAGE
from dyncollapse.runtime.files import printable, read_json, unmarked
from dyncollapse.runtime.schemas import Name, checked
from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

CONFIG = "config.json"
# Arguments of timm's factory, as far as they do not describe a network: files to read and ways to wrap it.
FILES = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
LOADING = ("pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "kwargs_filter", "device", "dtype")
WRAPPING = ("features_only", "feature_cfg", "feature_cls", "out_indices", "scriptable", "exportable", "no_jit")
BUILDING = ("model_name", "model_cls", "model_cfg", "variant")
NOT_OF_A_NETWORK = {*FILES, *LOADING, *WRAPPING, *BUILDING}
# Arguments that count layers: a file holds a tensor for each, so its tensors bound them.
COUNTS = ("depth", "layer", "block", "stage", "repeat")
WIDEST_ARGUMENT, MOST_PARTS = 2**15, 64
TRANSFORMERS = ("model_type", "architectures", "transformers_version")
# timm's models of the architectures that transformers has, with which its users begin.
AT_TIMM = {
    "dinov2": "timm/vit_small_patch14_dinov2.lvd142m",
    "dinov2_with_registers": "timm/vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov3_vit": "timm/vit_small_patch16_dinov3.lvd1689m",
    "vit": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_mae": "timm/vit_base_patch16_224.mae",
    "vit_msn": "timm/vit_base_patch16_224.dino",
    "clip": "timm/vit_base_patch16_clip_224.openai",
    "clip_vision_model": "timm/vit_base_patch16_clip_224.openai",
    "siglip": "timm/vit_base_patch16_siglip_224.webli",
    "beit": "timm/beit_base_patch16_224.in22k_ft_in22k",
    "convnext": "timm/convnext_tiny.fb_in1k",
    "convnextv2": "timm/convnextv2_tiny.fcmae",
    "resnet": "timm/resnet50.a1_in1k",
    "swin": "timm/swin_tiny_patch4_window7_224.ms_in1k",
}

Side = Annotated[int, Meta(ge=1, le=WIDEST_IMAGE)]
Size = Annotated[list[Side], Meta(min_length=3, max_length=3)]
Classes = Annotated[int, Meta(ge=-1, le=10**6)]
Level = Annotated[float, Meta(ge=-10, le=10)]
Spread = Annotated[float, Meta(ge=1e-3, le=10)]
Levels = Annotated[list[Level], Meta(min_length=1, max_length=3)]
Spreads = Annotated[list[Spread], Meta(min_length=1, max_length=3)]
Crop = Annotated[float, Meta(ge=0.1, le=1)]


class PublishedPixels(TypedDict, total=False):
    """The entries of timm's `pretrained_cfg` that are used; others are dropped."""

    tag: Name | None
    input_size: Size | None
    fixed_input_size: bool | None
    num_classes: Classes | None
    mean: Levels | None
    std: Spreads | None
    crop_pct: Crop | None
    crop_mode: Name | None
    interpolation: Name | None


class ConfigFile(PublishedPixels, total=False):
    """The entries of timm's config.json that are used; older files have no `pretrained_cfg`, but its entries."""

    architecture: Name
    model_args: dict[Name, Any] | None
    pretrained_cfg: PublishedPixels | None


@dataclass(frozen=True)
class ModelConfig:
    """A published model, as it describes itself.

    Attributes:
        architecture: The timm model.
        tag: Name of its weights among those of the architecture; None if it has none.
        classes: Classes of the classifier in its file.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.
        fixed_size: Whether the network is built for one image size.
        prepared: How its images are resized, cropped and normalised.
        arguments: More arguments of the architecture.
        listed: Whether timm's own list describes it.
        assumptions: Sentences on what it says and is not followed.
    """

    architecture: str
    tag: str | None
    classes: int
    channels: int
    image_size: int
    fixed_size: bool
    prepared: Preparation
    arguments: dict[str, Any] = field(default_factory=dict)
    listed: bool = False
    assumptions: tuple[str, ...] = ()


def of_registry(name: str) -> tuple[ModelConfig, "PretrainedCfg"]:
    """Describe a model in timm's own list.

    Args:
        name: A model with or without its tag, such as resnet18.a1_in1k.

    Returns:
        The model with its default tag if none is given, and timm's record of it.

    Raises:
        SettingError: If the installed timm does not have it, or no weights of it.
    """
    import timm

    shown = f"timm/{unmarked(name)}"
    bare, _, tag = name.partition(".")
    pretrained = sorted(timm.list_pretrained(f"{bare}.*")) if timm.is_model(bare) else []
    if not timm.is_model(bare):
        raise SettingError(
            f"{shown} is no model of the installed timm {timm.__version__}; {_like(bare)}hf-hub:ORG/NAME "
            "names a model that timm does not list"
        )
    if not pretrained:
        raise SettingError(f"{shown} is published without weights; {_like(bare)}name another model")
    if tag and name not in pretrained:
        raise SettingError(f"{shown} does not exist; give {_some([f'timm/{one}' for one in pretrained])}")
    known = timm.get_pretrained_cfg(name)
    assert known is not None
    entries = {key: list(v) if isinstance(v, tuple) else v for key, v in known.to_dict().items()}
    return replace(_described(bare, checked(entries, PublishedPixels), {}, shown), listed=True), known


def _like(word: str) -> str:
    """Published models of timm with similar names, as the beginning of a sentence."""
    import timm

    near = timm.list_pretrained(f"*{word}*") or timm.list_pretrained(f"{word[:6]}*") if word.isidentifier() else []
    return f"it has {_some([f'timm/{one}' for one in near])}; " if near else ""


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(map(unmarked, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def of_folder(folder: Path, shown: str) -> ModelConfig:
    """Describe a model by the config.json of its folder.

    Args:
        folder: A folder in timm's layout.
        shown: What messages call it.

    Returns:
        The model.

    Raises:
        ValueError: If the file is missing or damaged, describes a model of another library, or no image model. One
            line.
    """
    import timm

    try:
        content = read_json(folder / CONFIG)
    except FileNotFoundError:
        if not folder.is_dir():
            raise ValueError(f"{shown} is no folder; give one with {CONFIG} and model.safetensors") from None
        raise ValueError(
            f"{shown} has no {CONFIG}, which says what its weights are; give the file of weights, with `arch`"
        ) from None
    except OSError as error:
        raise ValueError(f"{shown}: {CONFIG} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{shown}: {CONFIG} is no JSON that can be used ({printable(str(error))[:200]})") from None
    if isinstance(content, dict) and "architecture" not in content and any(key in content for key in TRANSFORMERS):
        raise SettingError(f"{shown} {_of_transformers(content.get('model_type'))}")
    try:
        config = checked(content, ConfigFile)
        name = config.get("architecture")
        if name is None:
            raise ValueError("it has no architecture")
        if not name.isidentifier() or not timm.is_model(name):
            raise ValueError(f"the installed timm {timm.__version__} has no architecture {name[:80]!r}")
        entries: PublishedPixels = config.get("pretrained_cfg") or config
        if config.get("num_classes") is not None:
            entries = {**entries, "num_classes": config["num_classes"]}
        arguments = _checked_arguments(config.get("model_args") or {})
    except ValueError as error:
        raise ValueError(f"{shown}: {CONFIG} describes no model that can be read: {unmarked(str(error))}") from None
    return _described(name, entries, arguments, shown)


def _of_transformers(kind: object) -> str:
    """What to do with a model of transformers, whose names and heads differ from one architecture to the next."""
    known = AT_TIMM.get(kind) if isinstance(kind, str) else None
    what = f" (model_type {unmarked(kind)[:80]})" if isinstance(kind, str) else ""
    instead = f"give timm's copy of such a model, as {known}, or " if known else ""
    return (
        f"is a model of the library transformers{what}, which does not say what its representation is; {instead}embed "
        "the images yourself, save the embeddings as .npy and use dyncollapse diagnose FILE"
    )


def _checked_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a network: numbers, words and short lists of them. Raises ValueError for others."""
    for name, value in arguments.items():
        if name in NOT_OF_A_NETWORK or not name.isidentifier():
            raise ValueError(f"model_args has {name[:80]!r}, which is no argument of a network")
        parts = value if isinstance(value, list) else [value]
        if len(parts) > MOST_PARTS or not all(isinstance(part, int | float | str | None) for part in parts):
            raise ValueError(f"{name} in model_args is no number, word or short list of them")
        if any(isinstance(part, int | float) and abs(part) > WIDEST_ARGUMENT for part in parts):
            raise ValueError(f"{name} in model_args is larger than {WIDEST_ARGUMENT}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def most_layers(arguments: dict[str, Any]) -> int:
    """The largest argument that counts layers, which a file of weights has to hold; 0 without one."""
    counts = [0]
    for name, value in arguments.items():
        if any(word in name for word in COUNTS):
            counts += [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, int)]
    return max(counts)


def _described(architecture: str, entries: PublishedPixels, arguments: dict[str, Any], shown: str) -> ModelConfig:
    """Take the image size, channels and preparation from checked entries. Raises ValueError for others than usual."""
    arguments = dict(arguments)
    channels, height, width = entries.get("input_size") or (3, 224, 224)
    fixed = bool(entries.get("fixed_input_size")) and not arguments.get("dynamic_img_size")
    own_channels, own_size = arguments.pop("in_chans", None), arguments.get("img_size")
    arguments.pop("num_classes", None)
    channels = channels if own_channels is None else own_channels
    if isinstance(own_size, int):
        height = width = own_size
    elif isinstance(own_size, tuple) and len(own_size) == 2:
        height, width = own_size
    if channels not in (1, 3):
        raise ValueError(f"{shown} takes images of {channels} channels; 1 or 3 are read")
    if height != width or not NARROWEST_IMAGE <= height <= WIDEST_IMAGE:
        raise ValueError(
            f"{shown} takes images of {height} x {width} pixels; squares of {NARROWEST_IMAGE} to {WIDEST_IMAGE} "
            "are read"
        )
    prepared, assumptions = _preparation(entries, channels)
    return ModelConfig(
        architecture,
        entries.get("tag") or None,
        max(entries.get("num_classes") or 0, 0),
        channels,
        height,
        fixed or own_size is not None,
        prepared,
        arguments,
        assumptions=assumptions,
    )


def _preparation(entries: PublishedPixels, channels: int) -> tuple[Preparation, tuple[str, ...]]:
    """How images are prepared, and sentences on what is assumed instead of what the model says."""
    assumptions = []
    usual_mean, usual_std = map(list, COLOURS[3])
    mean, std = entries.get("mean") or usual_mean, entries.get("std") or usual_std
    if {len(mean), len(std)} - {1, channels}:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        assumptions.append(
            f"Mean {mean[0]:.3g} and deviation {std[0]:.3g} are averages of those of the model, which has {channels} "
            "channel and names more."
        )
    interpolation = entries.get("interpolation") or "bicubic"
    if interpolation not in get_args(Interpolation):
        assumptions.append(f"Images are resized bicubically; the model says {unmarked(interpolation)[:40]}.")
        interpolation = "bicubic"
    mode = entries.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        assumptions.append(f"The centre of images is cropped; the model says {unmarked(mode)[:40]}.")
    known: Any = interpolation
    return Preparation(
        tuple(map(float, mean * (channels // len(mean)))),
        tuple(map(float, std * (channels // len(std)))),
        float(entries.get("crop_pct") or 0.875),
        known,
        mode == "squash",
    ), tuple(assumptions)
