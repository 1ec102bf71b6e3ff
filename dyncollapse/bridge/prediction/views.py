"""Stream two views of every image as rows: pixels, or the representations of a frozen encoder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dyncollapse.bridge.data.augmentations import square, stored_side
from dyncollapse.bridge.data.batches import batches_in_order, mix
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.pixels import Unreadable, quiet_decoders
from dyncollapse.bridge.data.preparation import Preparation
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.prediction.pipelines import Pipeline

CHUNK = 256  # images at a time: their views take 25 MB at 32 pixels
Rows = tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]


@dataclass(frozen=True, eq=False)
class ViewPairs:
    """Two views of each of many images, drawn again in the same way at every iteration.

    Images that differ in size from the views are first resized and cropped to squares, in which the pipeline crops.

    Attributes:
        images: The images.
        pipeline: How the views are drawn.
        views: "two-sided", or "one-sided" where the first view is the plain image.
        size: Side of a view, in pixels.
        seed: Seed of the views; those of an image depend on it and on the image's place alone.
        skipped: Record of images that cannot be read.
        encoder: Maps views (b, c, size, size) to rows (b, d); None for the pixels themselves.
        prepared: How a published encoder's images are resized and normalised; None for the usual way.
        progress: Called with the images that are done and the images in all.

    Examples:
        >>> from dyncollapse.bridge import open_data
        >>> from dyncollapse.bridge.prediction.pipelines import open_pipeline
        >>> pairs = ViewPairs(open_data("digits").train, open_pipeline("digits", 1), size=8)
        >>> first, second = next(iter(pairs))
        >>> first.shape, second.shape
        (torch.Size([256, 64]), torch.Size([256, 64]))
    """

    images: Images
    pipeline: Pipeline
    views: str = "two-sided"
    size: int = 32
    seed: int = 0
    skipped: Skipped | None = None
    encoder: Callable[[Tensor], Tensor] | None = None
    prepared: Preparation | None = None
    progress: Callable[[int, int], None] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Number of images, read or not."""
        return len(self.images)

    def __iter__(self) -> Iterator[Rows]:
        """Yield both views of the next images, in order."""
        skipped = self.skipped or Skipped(self.images, tell=lambda _text: None)
        views = (None if self.views == "one-sided" else self.pipeline.first, self.pipeline.second)
        rows = 0
        for start in range(0, len(self.images), CHUNK):
            pixels = read_chunk(self.images, start, self.size, skipped)
            if len(pixels):
                held = HeldImages(pixels, torch.zeros(len(pixels), dtype=torch.int64), "read")
                (batch,) = batches_in_order(
                    held,
                    views,
                    self.size,
                    batch_size=len(pixels),
                    device=torch.device("cpu"),
                    workers=0,
                    seed=mix(self.seed, start),
                    prepared=self.prepared,
                )
                first, second = map(self._as_rows, batch.views)
                yield first, second
            rows += len(pixels)
            skipped.check(rows, ended=start + CHUNK >= len(self.images))
            if self.progress is not None:
                self.progress(min(start + CHUNK, len(self.images)), len(self.images))

    @property
    def alike(self) -> bool:
        """Whether both views are independent draws of one distribution given the image."""
        return self.views == "two-sided" and self.pipeline.alike

    def with_(self, **changes: object) -> "ViewPairs":
        """The same pairs but for some attributes."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def _as_rows(self, view: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        if self.encoder is None:
            return view.flatten(1)
        with torch.inference_mode():
            return self.encoder(view).float().clone()


def read_chunk(images: Images, start: int, size: int, skipped: Skipped) -> UInt8[Tensor, "b c h w"]:
    """Read up to CHUNK images from `start` on as squares of one size; those that cannot be read are left out."""
    side, end = stored_side(size), min(start + CHUNK, len(images))
    if isinstance(images, HeldImages) and images.pixels.shape[-2:] == (side, side):
        return images.pixels[start:end]
    pixels = []
    with quiet_decoders():
        for index in range(start, end):
            try:
                image = images.read(index)
            except Unreadable as error:
                skipped.add([(index, str(error))])
                continue
            pixels.append(image if image.shape[-2:] == (side, side) else square(image, side, side))
    return torch.stack(pixels) if pixels else torch.zeros(0, images.channels, side, side, dtype=torch.uint8)
