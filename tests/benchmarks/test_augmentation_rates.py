"""Two augmented views of a batch, on the device that holds it: ours against kornia and torchvision image by image.

kornia is measured where it is installed (pip install kornia).
"""

import pytest
import torch

from dyncollapse.bridge.data.augmentations import CIFAR, IMAGENET, batched_view, draw_views, worker_view
from dyncollapse.bridge.real_scale.throughput import kornia_view
from dyncollapse.bridge.real_scale.timing import wait

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Pair of views, side of the images and of the views, images in a batch.
SIZES = {"cifar": (CIFAR, 32, 32, 512), "imagenet": (IMAGENET, 256, 224, 32)}


def batch(name):
    pair, side, size, count = SIZES[name]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return pair, size, images.to(DEVICE)


def waited(work):
    def run():
        work()
        wait(DEVICE)

    return run


@pytest.mark.parametrize("name", SIZES)
def test_ours(benchmark, name):
    pair, size, images = batch(name)
    generator = torch.Generator().manual_seed(1)
    shape = (*images.shape[1:], size)

    def work():
        for view in pair:
            batched_view(images, draw_views(view, len(images), generator, shape, slice(None)), view, size)

    benchmark.pedantic(waited(work), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("name", SIZES)
def test_torchvision_image_by_image(benchmark, name):
    pair, size, images = batch(name)
    images = images.cpu()
    transforms = [worker_view(view, size) for view in pair]

    def work():
        for transform in transforms:
            torch.stack([transform(image) for image in images]).to(DEVICE)

    benchmark.pedantic(waited(work), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", SIZES)
def test_kornia(benchmark, name):
    pytest.importorskip("kornia")
    pair, size, images = batch(name)
    transforms = [kornia_view(view, size).to(DEVICE) for view in pair]

    def work():
        for transform in transforms:
            transform(images.float() / 255)

    benchmark.pedantic(waited(work), rounds=5, warmup_rounds=1)
