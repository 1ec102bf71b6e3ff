"""Run `dyncollapse bridge probe`: a linear probe of an encoder."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from torch import Tensor

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.images import limited
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.evaluation.probe import (
    CHOSEN,
    Probed,
    check_classes,
    kept_dimensions,
    logistic_probe,
)
from dyncollapse.bridge.evaluation.probe_options import SGD_EPOCHS, ProbeOptions
from dyncollapse.bridge.evaluation.sgd_probing import sgd_probe
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.training.run_folder import add_probe
from dyncollapse.commands.bridge_encoder import (
    Opened,
    embed_images,
    open_encoder,
    skipped_images,
)
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.console import open_console
from dyncollapse.commands.shared import note, say
from dyncollapse.runtime.progress import progress_bars, progress_line


def probe(options: EncoderOptions, *, wanted: ProbeOptions, as_json: bool) -> None:
    """Train and test a linear probe, and add its result to the run."""
    with refusals():
        opened = open_encoder(options, "train")
        opened.data.check_labels()
        if wanted.images is not None:
            opened = replace(opened, images=limited(opened.data, wanted.images).train)
        checkpoint, train = opened.checkpoint, opened.images
        kept_dimensions(wanted.subvector, representation_dim(checkpoint.encoder.backbone))
        check_classes(train.labels)
        test = opened.data.split("test")
        if wanted.classifier is None and wanted.epochs is not None:
            note(f"--epochs {wanted.epochs} chooses --classifier sgd; logistic has no epochs")
        if wanted.choose(len(train)) == "sgd":
            result = _by_sgd(opened, test, options, wanted)
        else:
            result = _by_logistic_regression(opened, test, options, wanted)
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


def _by_logistic_regression(opened: Opened, test: Images, options: EncoderOptions, wanted: ProbeOptions) -> Probed:
    def embed(images: Images, folder: Path) -> tuple[Tensor, Tensor]:
        embedded = embed_images(opened.checkpoint, images, folder, options, spaces=("representation",), views="clean")
        return embedded["representation"][0].clone(), embedded.labels  # a copy: the file is reused

    with TemporaryDirectory() as temporary:
        train_rows, test_rows = (embed(images, Path(temporary)) for images in (opened.images, test))
        with progress_bars(("probe",)):
            return logistic_probe(train_rows, test_rows, wanted.subvector, strength=wanted.strength)


def _by_sgd(opened: Opened, test: Images, options: EncoderOptions, wanted: ProbeOptions) -> Probed:
    with progress_line("steps") as advance:
        return sgd_probe(
            opened.checkpoint,
            opened.images,
            test,
            subvector=wanted.subvector,
            epochs=wanted.epochs or SGD_EPOCHS,
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
    if "C" in result.settings:
        say(_strength_in_words(result), err=to_stderr)


def _strength_in_words(result: Probed) -> str:
    """How the decay of a logistic probe was found, in one line."""
    strength, origin = f"C = {result.settings['C']:g}", result.settings["C_from"]
    if origin != CHOSEN:
        return f"{strength} ({origin})"
    grid, accuracies = result.settings["grid"], result.settings["held_out_top1"]
    assert isinstance(grid, list)
    assert isinstance(accuracies, list)
    text = f"{strength}: the best of {len(grid)} on a {origin} of the training images (top-1 {max(accuracies):.1f} %)"
    return text + (", at the edge of the grid; another --strength may be better" if result.settings["at_edge"] else "")
