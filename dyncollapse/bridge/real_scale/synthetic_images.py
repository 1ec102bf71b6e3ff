"""Generated images, so that nothing is downloaded: JPEGs of ImageNet's shapes and file sizes, and images in memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.runtime.process import cores

COARSE, GRAIN, QUALITY = 4, 10.0, 94  # side of a patch, noise, JPEG quality: about 110 kB a file, as ImageNet's
CHUNK = 1024


def write_jpegs(
    folder: Path, classes: int, per_class: int, sides: tuple[tuple[int, int], ...], seed: int = 0
) -> tuple[int, float]:
    """Write folders of JPEGs of coarse random patches with grain; each depends on seed, class and number alone.

    Args:
        folder: Gets a folder for each class.
        classes: Number of classes.
        per_class: Images per class.
        sides: Heights and widths in pixels, used in turn.
        seed: Seed of the images.

    Returns:
        The number of files and their mean size in bytes.
    """
    from PIL import Image

    def write(key: tuple[int, int]) -> int:
        kind, number = key
        generator = np.random.default_rng((seed, kind, number))
        height, width = sides[number % len(sides)]
        shape = (height // COARSE, width // COARSE, 3)
        # Each class has a colour, so that a network has something to learn.
        tint = np.random.default_rng((seed, kind)).integers(0, 128, 3)
        patches = (generator.integers(0, 128, shape) + tint).astype(np.uint8)
        coarse = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BILINEAR), np.float32)
        grain = GRAIN * generator.standard_normal(coarse.shape, dtype=np.float32)
        path = folder / f"n{kind:08d}" / f"{number:04d}.jpg"
        Image.fromarray((coarse + grain).clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        return path.stat().st_size

    for kind in range(classes):
        (folder / f"n{kind:08d}").mkdir(parents=True)
    keys = [(kind, number) for number in range(per_class) for kind in range(classes)]
    with ThreadPoolExecutor(cores()) as pool:  # encoding and drawing release Python's lock
        sizes = list(pool.map(write, keys))
    return len(sizes), sum(sizes) / len(sizes)


def images_in_memory(count: int, side: int, classes: int, device: torch.device, seed: int = 0) -> HeldImages:
    """Make square images of coarse random patches with a tint for each class.

    Args:
        count: Number of images.
        side: Their side, in pixels.
        classes: Number of classes.
        device: Where the pixels are.
        seed: Seed of the images.

    Returns:
        The images.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    tints = torch.randint(0, 128, (classes, 3, 1, 1), generator=generator)
    pixels = torch.empty(count, 3, side, side, dtype=torch.uint8, device=device)
    shape = (3, max(1, side // 8), max(1, side // 8))
    for block, kinds in zip(pixels.split(CHUNK), labels.split(CHUNK), strict=True):
        coarse = torch.randint(0, 128, (len(block), *shape), generator=generator) + tints[kinds]
        smooth = functional.interpolate(coarse.to(device, torch.float32), size=(side, side), mode="bilinear")
        block.copy_(smooth)
    return HeldImages(pixels, labels, "generated")
