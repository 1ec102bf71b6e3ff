"""What `bridge embed`, `diagnose` and `probe` share: opening an encoder and its images, and embedding these."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.images import Data, limited, open_data
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.embed import Embedded, embed
from dyncollapse.bridge.evaluation.load import LoadedEncoder, load_encoder
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.commands.bridge_shared import in_options, note_in_options
from dyncollapse.commands.shared import fail, use_machine
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.progress import progress_line


@dataclass(frozen=True, eq=False)
class Opened:
    """An encoder, the images of one split, and the data that they are from.

    `images` are those that the run used, which may be fewer than `data` has.
    """

    checkpoint: LoadedEncoder
    images: Images
    split: str
    data: Data

    @property
    def title(self) -> str:
        """The file's name, and how many of its tensors were matched."""
        return f"{self.checkpoint.path}: {self.checkpoint.matched}"


def open_encoder(options: EncoderOptions, split: str | None) -> Opened:
    """Open the encoder and the images. Raises ValueError when they do not fit together."""
    use_machine(options.device, options.threads, options.workers)
    checkpoint = load_encoder(
        options.checkpoint,
        arch=options.arch,
        stem=options.stem,
        renames=options.renames,
        d0=options.d0,
        image_size=options.image_size,
        augment=options.augment,
        projector_prefix=options.projector_prefix,
        projector_activation=options.projector_activation,
        projector_last=options.projector_last,
        trust=options.trust_checkpoint,
    ).reworded(in_options)
    name = options.data or checkpoint.data
    if name is None:
        raise ValueError(f"--data is not given, and {checkpoint.path} does not say which images; name a folder")
    data = open_data(name, note_in_options)
    recipe = checkpoint.recipe
    used = data if recipe is None or name != checkpoint.data else limited(data, recipe.images)
    split = split or ("train" if data.test is None else "test")
    images = used.split(split)
    checkpoint.check_channels(images.channels)
    if options.data not in (None, checkpoint.data):
        checkpoint = replace(checkpoint, run=None)  # results on other images do not belong to the run
    return Opened(checkpoint, images, split, data)


def embed_images(
    checkpoint: LoadedEncoder,
    images: Images,
    folder: Path,
    options: EncoderOptions,
    *,
    spaces: Sequence[str],
    views: str,
) -> Embedded:
    """Embed images into a folder, with progress on stderr."""
    with progress_line("images") as advance:
        return embed(
            checkpoint,
            images,
            folder,
            spaces=spaces,
            views=views,
            batch_size=options.batch_size,
            device=options.device,
            workers=options.workers,
            seed=options.seed,
            skipped=skipped_images(images, options),
            progress=advance,
        )


def skipped_images(images: Images, options: EncoderOptions) -> Skipped:
    """The record of images that cannot be read, each reported on stderr."""
    return Skipped(images, options.strict, note_in_options)


@contextmanager
def saved_whole_or_not(show: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Report that nothing was saved, after Ctrl-C or a file that cannot be written; after the latter, `show` first."""
    try:
        yield
    except KeyboardInterrupt:
        fail(130, "Interrupted; nothing was saved.")
    except CannotWrite as error:
        show()
        fail(1, f"{error.filename} could not be written ({error.strerror}); nothing was saved")
