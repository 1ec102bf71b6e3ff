"""Augmentations: random views of images, made one by one in worker processes or batch by batch on the device."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional

from dyncollapse.bridge.data.preparation import Interpolation, Preparation
from dyncollapse.bridge.recipe import Recipe

# Mean and standard deviation that normalise pixels in [0, 1]. For three channels they are ImageNet's, as in torchvision
# and timm; for one channel they map pixels to [-1, 1].
COLOURS = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.5,), (0.5,))}
LONGEST = 16  # largest ratio of an image's sides, far beyond that of photographs
GREY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as in torchvision and Pillow


@dataclass(frozen=True)
class View:
    """The settings of one augmentation pipeline; steps run in the order of the attributes.

    The defaults are BYOL's, without blur and solarisation (Grill et al. 2020, Table 6). Each setting has the meaning
    that it has in torchvision's transforms.

    Attributes:
        scale: Smallest and largest area of the crop, as a fraction of the image's area.
        ratio: Smallest and largest aspect ratio of the crop, width over height.
        degrees: Largest rotation in either direction, in degrees.
        flip: Probability of a horizontal flip.
        jitter: Strengths of brightness, contrast, saturation and hue jitter, applied in random order.
        jitter_probability: Probability that the four jitters are applied at all.
        grey: Probability of a greyscale view.
        blur: Probability of a Gaussian blur.
        blur_size: Width of the blur's kernel, in pixels.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        solarise: Probability of solarisation, which inverts pixels of 128 and more (of 255).
        noise: Standard deviation of the Gaussian noise that is added to pixels in [0, 1].

    Examples:
        >>> crops = View(scale=(0.5, 1.0), jitter_probability=0.0, grey=0.0)
        >>> image = torch.zeros(3, 40, 30, dtype=torch.uint8)
        >>> worker_view(crops, size=16)(image).shape
        torch.Size([3, 16, 16])
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    degrees: float = 0.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: float = 0.0
    blur_size: int = 23
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    noise: float = 0.0


# The paper's two pipelines (Appendix D.1), with BYOL's probabilities and ranges (Grill et al. 2020, Table 6).
IMAGENET = (View(blur=1.0), View(blur=0.1, solarise=0.2))
# Crops and colours of Chen et al. (2020) for CIFAR-10, without blur: images of 32 pixels have little detail to remove.
CIFAR = (View(scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1)),) * 2
# The paper has no views for digits. No flips and only small rotations, which could turn a digit into another one; no
# colour jitter, because digits are grey.
DIGITS = (View(scale=(0.5, 1.0), degrees=15.0, flip=0.0, jitter=(0.4, 0.4, 0.0, 0.0), grey=0.0, noise=0.1),) * 2
PAIRS = {"imagenet": IMAGENET, "cifar": CIFAR, "digits": DIGITS}
# Views for a linear probe: crops and flips, or crops alone for digits, which a flip would change.
PROBE = View(jitter_probability=0.0, grey=0.0)
PROBES = {
    "imagenet": PROBE,
    "cifar": PROBE,
    "digits": View(scale=(0.5, 1.0), flip=0.0, jitter_probability=0.0, grey=0.0),
}


def view_settings(name: str, crop_scale: float | None = None, colour: float = 1.0) -> tuple[View, View]:
    """The augmentations of two views, with other crops or colours than their usual ones.

    Args:
        name: One of PAIRS.
        crop_scale: Smallest area of the crop, as a fraction of the image's; None for the usual one.
        colour: Factor on the strengths of the four jitters.

    Returns:
        The settings of both views.
    """

    def changed(view: View) -> View:
        low = view.scale[0] if crop_scale is None else crop_scale
        brightness, contrasted, saturation, hue = (colour * strength for strength in view.jitter)
        return replace(view, scale=(low, view.scale[1]), jitter=(brightness, contrasted, saturation, hue))

    first, second = PAIRS[name]
    return changed(first), changed(second)


def pair_of(recipe: Recipe) -> tuple[View, View]:
    """The augmentations of a recipe's two views."""
    return view_settings(recipe.augment, recipe.crop_scale, recipe.colour)


def crop_only(view: View) -> View:
    """Keep only the geometry of a view: crop, flip and rotation."""
    return replace(view, jitter_probability=0.0, grey=0.0, blur=0.0, solarise=0.0, noise=0.0)


def worker_view(view: View, size: int) -> Callable[[UInt8[Tensor, "c h w"]], UInt8[Tensor, "c size size"]]:
    """Build torchvision's transform for one view of one image, as worker processes use it.

    Args:
        view: The augmentation.
        size: Side of the view, in pixels.

    Returns:
        A transform from an image of any size to its view. It draws from torch's global generator.

    Examples:
        >>> transform = worker_view(IMAGENET[0], size=32)
        >>> transform(torch.zeros(3, 60, 80, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """
    from torchvision.transforms import v2

    steps: list[nn.Module] = []
    if view.degrees:
        steps.append(v2.RandomRotation(view.degrees, v2.InterpolationMode.BILINEAR))
    steps.append(v2.RandomResizedCrop(size, view.scale, view.ratio, v2.InterpolationMode.BICUBIC, antialias=True))
    steps.append(v2.RandomHorizontalFlip(view.flip))
    if view.jitter_probability:
        steps.append(v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_probability))
    if view.grey:
        steps.append(v2.RandomGrayscale(view.grey))
    if view.blur:
        taps = min(view.blur_size, 2 * size - 1)  # the padding has to be smaller than the image
        steps.append(v2.RandomApply([v2.GaussianBlur(taps, view.blur_sigma)], view.blur))
    if view.solarise:
        steps.append(v2.RandomSolarize(128, view.solarise))
    if view.noise:
        steps.append(v2.GaussianNoise(sigma=view.noise))
    transform: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return transform


def plain(
    images: UInt8[Tensor, "*n c h w"], size: int, prepared: Preparation | None = None
) -> UInt8[Tensor, "*n c size size"]:
    """Resize images and crop the centre, as evaluation does.

    Args:
        images: Pixels from 0 to 255.
        size: Side of the crop, in pixels.
        prepared: How; None resizes the shorter side to `stored_side(size)`.

    Returns:
        The crops.
    """
    if prepared is None:
        return square(images, stored_side(size), size)
    side = prepared.resized_side(size)
    return square(images, side, size, prepared.interpolation, squash=prepared.squash)


def stored_side(size: int) -> int:
    """Side in pixels to which images are resized before the centre is cropped: 256 for 224, `size` itself below 64."""
    return round(size * 256 / 224) if size >= 64 else size


def square(
    images: UInt8[Tensor, "*n c h w"],
    shorter: int,
    size: int,
    interpolation: Interpolation = "bicubic",
    *,
    squash: bool = False,
) -> UInt8[Tensor, "*n c size size"]:
    """Resize the shorter side of images to `shorter` pixels, or both sides, and crop the central square.

    Args:
        images: Pixels from 0 to 255.
        shorter: Side after resizing, in pixels.
        size: Side of the crop, in pixels.
        interpolation: How images are resized.
        squash: Whether both sides are resized.

    Returns:
        The crops.
    """
    from torchvision.transforms.v2 import functional as f

    height, width = images.shape[-2:]
    most = LONGEST * min(height, width)
    if max(height, width) > most and not squash:
        # Crop very long images first: 1 x 80000 pixels, resized whole, would take gigabytes.
        most += (max(height, width) - most) % 2  # so that both ends lose equally many pixels
        images = f.center_crop(images, [min(height, most), min(width, most)])
    if (max if squash else min)(images.shape[-2:]) != shorter or (squash and height != width):
        sides = [shorter, shorter] if squash else [shorter]
        exact = {"nearest": "nearest-exact"}  # Pillow's nearest pixel; torchvision's own is off by half a pixel
        mode = f.InterpolationMode(exact.get(interpolation, interpolation))
        images = f.resize(images, sides, mode, antialias=True)
    return f.center_crop(images, [size, size])


def normalise(images: Shaped[Tensor, "n c h w"], prepared: Preparation | None = None) -> Float[Tensor, "n c h w"]:
    """Normalise pixels, uint8 or floats in [0, 1], by the mean and standard deviation given, or else in COLOURS."""
    constants = COLOURS[images.shape[-3]] if prepared is None else (prepared.mean, prepared.std)
    mean, spread = (_constant(values, images.device) for values in constants)
    pixels = images if images.is_floating_point() else images.to(torch.float32) / 255
    return (pixels - mean) / spread


def batched_view(
    images: UInt8[Tensor, "n c h w"], draws: dict[str, Tensor], view: View, size: int, *, cropped: bool = False
) -> Float[Tensor, "n c size size"]:
    """Make one view of every image of a batch at once, on the batch's device.

    The operations are torchvision's, with two differences. Rotation, crop, flip and resizing are a single bilinear
    resampling without an antialiasing filter, which suits crops that are not much larger than the view. The order of
    the four jitters is drawn once for the batch.

    Args:
        images: Pixels from 0 to 255.
        draws: The random numbers from `draw_views`, a row for each image.
        view: The augmentation.
        size: Side of the view, in pixels.
        cropped: Whether the images have the view's size and geometry already (see `crop_only`).

    Returns:
        Pixels in [0, 1].

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.zeros(2, 3, 40, 30, dtype=torch.uint8)
        >>> draws = draw_views(IMAGENET[0], 2, generator, (3, 40, 30, 16), slice(None))
        >>> batched_view(images, draws, IMAGENET[0], 16).shape
        torch.Size([2, 3, 16, 16])
    """
    order = draws["order"].tolist()  # kept on the CPU: reading it from a GPU would wait for the GPU
    draws = {n: values.to(images.device, non_blocking=True) for n, values in draws.items() if n != "order"}
    x = images.to(torch.float32) / 255
    if not cropped:
        grid = functional.affine_grid(draws["affine"], [len(x), x.shape[1], size, size], align_corners=False)
        x = functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=False).clamp_(0, 1)
    if view.jitter_probability:
        jitters = (brighten, contrast, saturate, turn_hue)
        jittered = x
        for number in order:
            if view.jitter[number] and (number < 2 or x.shape[1] == 3):
                jittered = jitters[number](jittered, _column(draws["jitter"][:, number]))
        x = torch.where(_column(draws["jittered"]), jittered, x)
    if view.grey and x.shape[1] == 3:
        x = torch.where(_column(draws["greyed"]), grey(x).expand_as(x), x)
    if view.blur:
        x = torch.where(_column(draws["blurred"]), blur(x, draws["sigma"], view.blur_size), x)
    if view.solarise:
        # Pixels at and above 128 of 255 are inverted.
        x = torch.where(_column(draws["solarised"]) & (x >= 128 / 255), 1 - x, x)
    if view.noise:
        x = (x + view.noise * draws["noise"]).clamp_(0, 1)
    return x


def draw_views(
    view: View, count: int, generator: torch.Generator, shape: tuple[int, int, int, int], rows: slice
) -> dict[str, Tensor]:
    """Draw the random numbers for the views of a batch.

    All processes draw for the whole batch and keep their own rows, so the views do not depend on how many processes
    share the batch.

    Args:
        view: The augmentation.
        count: Images in the whole batch.
        generator: Source of randomness, on the CPU.
        shape: Channels, height and width of the images, and the side of the view, in pixels.
        rows: This process's rows of the batch.

    Returns:
        The `draws` of `batched_view` for these rows: affine matrices (n, 2, 3), jitter factors (n, 4), and so on.

    Examples:
        >>> shape = (3, 40, 30, 16)
        >>> whole = draw_views(IMAGENET[0], 4, torch.Generator().manual_seed(0), shape, slice(None))
        >>> half = draw_views(IMAGENET[0], 4, torch.Generator().manual_seed(0), shape, slice(2, 4))
        >>> torch.equal(whole["affine"][2:], half["affine"])
        True
    """
    channels, height, width, size = shape

    def uniform(low: float, high: float, columns: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, columns, generator=generator).squeeze(1)

    # A crop of this area and aspect ratio, limited to the image. torchvision redraws such crops up to ten times first.
    area, aspect = (
        height * width * uniform(*view.scale),
        uniform(math.log(view.ratio[0]), math.log(view.ratio[1])).exp(),
    )
    w, h = (area * aspect).sqrt().clamp(max=width), (area / aspect).sqrt().clamp(max=height)
    left, top = uniform(0, 1) * (width - w), uniform(0, 1) * (height - h)
    mirrored = torch.where(uniform(0, 1) < view.flip, -1.0, 1.0)
    # affine_grid's coordinates run from -1 to 1 over the image.
    angle = uniform(-view.degrees, view.degrees).deg2rad()
    scale_x, scale_y = w / width, h / height
    shift_x, shift_y = (2 * left + w) / width - 1, (2 * top + h) / height - 1
    cos, sin = angle.cos(), angle.sin()
    affine = torch.stack(
        [
            torch.stack([cos * scale_x * mirrored, -sin * scale_y * height / width, shift_x], -1),
            torch.stack([sin * scale_x * mirrored * width / height, cos * scale_y, shift_y], -1),
        ],
        1,
    )
    brightness, contrasted, saturation, hue = view.jitter
    low = torch.tensor([1 - brightness, 1 - contrasted, 1 - saturation, -hue])
    high = torch.tensor([1 + brightness, 1 + contrasted, 1 + saturation, hue])
    draws = {
        "affine": affine,
        "jitter": low + (high - low) * uniform(0, 1, 4),
        "jittered": uniform(0, 1) < view.jitter_probability,
        "greyed": uniform(0, 1) < view.grey,
        "blurred": uniform(0, 1) < view.blur,
        "sigma": uniform(*view.blur_sigma),
        "solarised": uniform(0, 1) < view.solarise,
    }
    order = torch.randperm(4, generator=generator)
    if view.noise:
        draws["noise"] = torch.randn(count, channels, size, size, generator=generator)
    return {name: values[rows] for name, values in draws.items()} | {"order": order}


def brighten(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n c h w"]:
    """Multiply the pixels of each image by its factor."""
    return (x * factor).clamp_(0, 1)


def contrast(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n c h w"]:
    """Scale the distance of each image's pixels from its mean grey by its factor."""
    mean = grey(x).mean((-3, -2, -1), keepdim=True)
    return torch.lerp(mean, x, factor).clamp_(0, 1)


def saturate(x: Float[Tensor, "n 3 h w"], factor: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n 3 h w"]:
    """Scale the distance of each pixel from its own grey by the image's factor."""
    return torch.lerp(grey(x).expand_as(x), x, factor).clamp_(0, 1)


def turn_hue(x: Float[Tensor, "n 3 h w"], turn: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n 3 h w"]:
    """Shift the hue of each image by a fraction of a full turn; value and saturation (HSV) stay as they are.

    Conversion back to RGB is f(n) = v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 hue) mod 6, where n is 5 for red,
    3 for green and 1 for blue.
    """
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = x.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1.0).squeeze(1)
    top = value.squeeze(1)
    sextant = torch.where(
        top == red, (green - blue) / safe, torch.where(top == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    k = _constant((5.0, 3.0, 1.0), x.device) + sextant.unsqueeze(1) + 6 * turn
    k = k.remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def grey(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """The luma of each pixel; images of one channel stay as they are."""
    if x.shape[-3] == 1:
        return x
    return (x * _constant(GREY, x.device)).sum(-3, keepdim=True)


def blur(x: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"], taps: int) -> Float[Tensor, "n c h w"]:
    """Blur each image by a Gaussian of its own sigma, with reflected edges.

    Args:
        x: Images.
        sigma: Standard deviations, in pixels.
        taps: Width of the kernel, in pixels; less where the image is too small for it.

    Returns:
        Blurred images.
    """
    n, c, h, w = x.shape
    taps = min(taps, 2 * min(h, w) - 1)
    offsets = torch.arange(taps, dtype=x.dtype, device=x.device) - (taps - 1) / 2
    kernel = torch.softmax(-(offsets.square()) / (2 * sigma.to(x.dtype).unsqueeze(1).square()), -1)
    kernel = kernel.repeat_interleave(c, 0)
    half = taps // 2
    flat = functional.pad(x, (half, half, half, half), "reflect").reshape(1, n * c, h + 2 * half, w + 2 * half)
    flat = functional.conv2d(flat, kernel.view(n * c, 1, 1, taps), groups=n * c)
    return functional.conv2d(flat, kernel.view(n * c, 1, taps, 1), groups=n * c).reshape(n, c, h, w)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values by channel, cached per device: copying them to a GPU at every call would wait for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(-1, 1, 1)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
