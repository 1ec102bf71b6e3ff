"""`dyncollapse bridge probe`: a linear probe of an encoder, and its place beside the run."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from torch import Tensor

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.evaluation.probe import (
    METHODS,
    Probed,
    check_classes,
    kept_dimensions,
    logistic_probe,
    sgd_probe,
)
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.recipe import WIDEST
from dyncollapse.bridge.training.run_folder import add_probe
from dyncollapse.commands.bridge_encoder import (
    Opened,
    embed_images,
    encoder_options,
    open_encoder,
    skipped_images,
)
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.console import open_console
from dyncollapse.commands.help_pages import GroupedCommand
from dyncollapse.commands.json_option import AS_JSON
from dyncollapse.commands.shared import EPOCHS, say
from dyncollapse.runtime.progress import progress_bars, progress_line

# Training images up to which the probe is by logistic regression, unless asked for otherwise: all features are held
# in memory, 2048 of them 1.6 GB in float64.
LOGISTIC_MOST = 100_000
SGD_EPOCHS = 100


@click.command(cls=GroupedCommand)
@encoder_options
@click.option(
    "--method",
    metavar="logistic|sgd",
    help=f"On stored features, or on random crops and flips.  [logistic up to {LOGISTIC_MOST} images, sgd beyond]",
)
@click.option(
    "--subvector", type=click.IntRange(1, WIDEST), metavar="N", help="Probe the first N dimensions only.  [all]"
)
@click.option("--epochs", type=EPOCHS, help=f"Epochs of sgd.  [{SGD_EPOCHS}]")
@AS_JSON
def probe(
    options: EncoderOptions, *, method: str | None, subvector: int | None, epochs: int | None, as_json: bool
) -> None:
    """Train a linear classifier on an encoder's frozen representation, and test it.

    The result goes into the run's probes.json, where `dyncollapse bridge table` finds it.
    """
    with refusals():
        if method not in (None, *METHODS):
            raise ValueError(f"--method is {method!r}; choose one of {', '.join(METHODS)}")
        opened = open_encoder(options, "train")
        checkpoint, train = opened.checkpoint, opened.images
        opened.data.check_labels()
        kept_dimensions(subvector, representation_dim(checkpoint.encoder.backbone))
        check_classes(train.labels)
        test = opened.data.split("test")
        method = method or ("logistic" if len(train) <= LOGISTIC_MOST and epochs is None else "sgd")
        if method == "sgd":
            result = _by_sgd(opened, test, options, subvector, epochs or SGD_EPOCHS)
        elif epochs is None:
            result = _by_logistic_regression(opened, test, options, subvector)
        else:
            raise ValueError(f"--epochs is {epochs}, but --method logistic has none; drop one of them")
        if checkpoint.run:
            add_probe(checkpoint.run, result.as_dict() | {"step": checkpoint.step})
    if as_json:
        known = {"matched": checkpoint.matched, "assumptions": list(checkpoint.assumptions)}
        click.echo(json.dumps(result.as_dict() | known))
    for text in checkpoint.assumptions:
        say(f"assumed: {text}", err=as_json)
    print_probe(result, to_stderr=as_json)
    if checkpoint.run:
        say(f"Added to {checkpoint.run}/probes.json", err=as_json)


def _by_logistic_regression(opened: Opened, test: Images, options: EncoderOptions, subvector: int | None) -> Probed:
    def embed(images: Images, folder: Path) -> tuple[Tensor, Tensor]:
        embedded = embed_images(opened.checkpoint, images, folder, options, spaces=("representation",), views="clean")
        return embedded["representation"][0].clone(), embedded.labels  # a copy, for the next ones take its file

    with TemporaryDirectory() as temporary:
        train_rows, test_rows = (embed(images, Path(temporary)) for images in (opened.images, test))
        with progress_bars(("probe",)):
            return logistic_probe(train_rows, test_rows, subvector)


def _by_sgd(opened: Opened, test: Images, options: EncoderOptions, subvector: int | None, epochs: int) -> Probed:
    with progress_line("steps") as advance:
        return sgd_probe(
            opened.checkpoint,
            opened.images,
            test,
            subvector=subvector,
            epochs=epochs,
            batch_size=options.batch_size,
            device=options.device,
            workers=options.workers,
            seed=options.seed,
            skipped=skipped_images(opened.images, options),
            progress=advance,
        )


def print_probe(result: Probed, *, to_stderr: bool) -> None:
    """Print a probe's result in one line."""
    whole = result.dimensions == result.of
    part = "" if whole else f", the first {result.dimensions} of {result.of} dimensions only"
    open_console(to_stderr).print(
        f"linear probe ({result.method}{part}): top-1 {result.top1:.1f} ± {result.error:.1f} % on {result.test} test "
        f"images, {result.train_top1:.1f} % on {result.train} training images",
        soft_wrap=True,
    )
