"""What `bridge embed`, `diagnose` and `probe` share: the options that find an encoder and its images, and embedding."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.images import Data, open_data
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.embed import VIEWS, Embedded, embed
from dyncollapse.bridge.evaluation.load import LoadedEncoder, load_encoder
from dyncollapse.bridge.recipe import WIDEST
from dyncollapse.commands.bridge_shared import in_options, note_in_options
from dyncollapse.commands.shared import BATCHES, SEEDS, THREADS, WORKERS, Command, fail, use_machine
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.progress import progress_line

OPTIONS = (
    click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="A file, or a run's folder."),
    click.option("--data", help="Folder of images, or digits.  [the images that the run was trained on]"),
    click.option("--arch", help="timm model of a checkpoint by others.  [detected among ResNets]"),
    click.option("--stem", metavar="imagenet|cifar|cifar-padding-2", help="Its first layers.  [detected]"),
    click.option(
        "--prefix-map", multiple=True, metavar="OLD=NEW", help="Replace the beginning OLD of its tensors' names."
    ),
    click.option(
        "--d0",
        type=click.IntRange(1, WIDEST),
        help="Its embedding is the first d0 dimensions of the representation (DirectCLR).",
    ),
    click.option("--projector-prefix", metavar="NAME", help="Beginning of its projector's tensors' names.  [detected]"),
    click.option(
        "--projector-activation",
        metavar="relu|gelu|tanh|identity|...",
        help="Activation between the projector's layers.  [by its layout, or relu]",
    ),
    click.option(
        "--projector-last",
        metavar="normalise|relu|...",
        help="What follows the projector's last layer: division by the norm, or an activation.  [nothing]",
    ),
    click.option(
        "--image-size",
        type=click.IntRange(4, 4096),
        help="Side of its images, in pixels.  [its own; 224, or 32 for small stems]",
    ),
    click.option(
        "--augment", metavar="imagenet|cifar|digits", help="Augmentations that it was trained with.  [by its stem]"
    ),
    click.option("--trust-checkpoint", is_flag=True, help="Unpickle the file, which runs any code in it."),
    click.option("--device", default="cpu", help="cpu, cuda or cuda:N.  [cpu]"),
    click.option("--threads", type=THREADS, default=1, help="CPU threads.  [1]"),
    click.option(
        "--workers", type=WORKERS, default=0, help="Worker processes that read images.  [0: this process reads them]"
    ),
    click.option("--batch-size", type=BATCHES, default=256, help="Images at a time.  [256]"),
    click.option("--strict", is_flag=True, help="Stop at an image that cannot be read."),
    click.option("--seed", type=SEEDS, default=0, help="Seed of the augmented views.  [0]"),
)


@dataclass(frozen=True)
class EncoderOptions:
    """The values of OPTIONS."""

    checkpoint: Path
    data: str | None
    arch: str | None
    stem: str | None
    prefix_map: tuple[str, ...]
    d0: int | None
    projector_prefix: str | None
    projector_activation: str | None
    projector_last: str | None
    image_size: int | None
    augment: str | None
    trust_checkpoint: bool
    device: str
    threads: int
    workers: int
    batch_size: int
    strict: bool
    seed: int

    @property
    def renames(self) -> dict[str, str]:
        """The pairs of --prefix-map. Raises ValueError for one that is none."""
        if wrong := next((text for text in self.prefix_map if "=" not in text), None):
            raise ValueError(f"--prefix-map is {wrong!r}; write OLD=NEW")
        return {old: new for old, _, new in (text.partition("=") for text in self.prefix_map)}

    def as_values(self) -> dict[str, Any]:
        """All of them as plain JSON values."""
        return asdict(self) | {"checkpoint": str(self.checkpoint)}


def encoder_options(command: Command) -> Command:
    """Give a command the options that find an encoder and its images, as its first argument."""

    @wraps(command)
    def packed(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(EncoderOptions)}
        command(EncoderOptions(**own), **given)

    for decorate in reversed(OPTIONS):
        packed = decorate(packed)
    return packed


@dataclass(frozen=True, eq=False)
class Opened:
    """An encoder on its device, the images that `split` names, and all images of the data that these are from."""

    checkpoint: LoadedEncoder
    images: Images
    split: str
    data: Data

    @property
    def title(self) -> str:
        """Which file it is, and how its tensors were matched."""
        return f"{self.checkpoint.path}: {self.checkpoint.matched}"


def open_encoder(options: EncoderOptions, split: str | None) -> Opened:
    """Open what --checkpoint, --data and --split name. Raises ValueError where these do not fit together."""
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
    split = split or ("train" if data.test is None else "test")
    if split not in ("train", "test"):
        raise ValueError(f"--split is {split!r}; choose one of train, test")
    images = data.split(split)
    if images.channels != checkpoint.channels:
        raise ValueError(
            f"--data has images of {images.channels} channel(s), and the encoder takes {checkpoint.channels}; "
            "give others"
        )
    if options.data not in (None, checkpoint.data):
        checkpoint = replace(checkpoint, run=None)  # what other images say is no result of the run
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
    """Embed images into a folder, with progress on stderr. Raises ValueError for unknown views."""
    if views not in VIEWS:
        raise ValueError(f"--views is {views!r}; choose one of {', '.join(VIEWS)}")
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
    """Say after Ctrl-C and where a file cannot be written that nothing was saved; `show` results before the latter."""
    try:
        yield
    except KeyboardInterrupt:
        fail(130, "Interrupted; nothing was saved.")
    except CannotWrite as error:
        show()
        fail(1, f"{error.filename} could not be written ({error.strerror}); nothing was saved")
