"""Sizes of the real-scale check: full size for a GPU, and toy size for any machine."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """Sizes of all parts; `judged` says whether speeds are compared with their targets."""

    judged: bool
    seconds: float  # shortest time to measure a rate
    # Parts 1 and 2: the network, and generated images, JPEGs in a folder of classes.
    recipe: dict[str, Any]
    classes: int
    per_class: int
    jpeg_sides: tuple[tuple[int, int], ...]  # heights and widths, in turn
    batches: tuple[int, ...]  # pairs, to choose from
    held: int  # images of the folder that are read into memory
    embedded: int  # images, of which the first `embedded_part` are embedded again in float64
    embedded_part: int
    spectrum_part: int
    # Part 3: samples, dimensions of representation and embedding, and samples of the dense form.
    samples: int
    dim: int
    embedding_dim: int
    dense_samples: int
    # Part 4: toy runs at once on the device, on the CPU, in their comparison; and steps.
    runs: int
    cpu_runs: int
    compared_runs: int
    steps: int
    # Part 5: the run that is killed.
    killed: dict[str, Any]
    killed_images: int
    killed_steps: int
    checkpoint_every: int
    # Part 6: CIFAR-10, rows of the paper's tables.
    cifar: dict[str, Any]
    probed: int  # training images of each probe
    most_epochs: int | None  # None: as many as the time allows


FULL = Scale(
    judged=True,
    seconds=4.0,
    recipe={"preset": "paper-imagenet"},
    classes=1000,
    per_class=4,
    jpeg_sides=((375, 500), (500, 375), (333, 500), (400, 400)),
    batches=(128, 256, 512),
    held=2048,
    embedded=50_000,
    embedded_part=32,
    spectrum_part=4096,
    samples=50_000,
    dim=2048,
    embedding_dim=128,
    dense_samples=2048,
    runs=4096,
    cpu_runs=64,
    compared_runs=64,
    steps=200,
    killed={"arch": "resnet18", "stem": "cifar", "augment": "cifar", "image_size": 32, "batch_size": 128},
    killed_images=512,
    killed_steps=240,
    checkpoint_every=40,
    cifar={"preset": "cifar10"},
    probed=10_000,
    most_epochs=None,
)

_NARROW = {"arch": "resnet10-narrow", "stem": "cifar", "precision": "float32"}

TINY = Scale(
    judged=False,
    seconds=0.0,
    recipe={"preset": "paper-imagenet", **_NARROW, "precision": "bfloat16", "image_size": 16},
    classes=6,
    per_class=8,
    jpeg_sides=((60, 80), (80, 60), (50, 80), (64, 64)),
    batches=(8, 16),
    held=32,
    embedded=40,
    embedded_part=8,
    spectrum_part=40,
    samples=300,
    dim=24,
    embedding_dim=8,
    dense_samples=100,
    runs=8,
    cpu_runs=4,
    compared_runs=4,
    steps=20,
    killed={**_NARROW, "augment": "digits", "image_size": 8, "batch_size": 8},
    killed_images=24,
    killed_steps=90,
    checkpoint_every=10,
    cifar={"preset": "cifar10", **_NARROW, "batch_size": 8},
    probed=1000,
    most_epochs=1,
)
