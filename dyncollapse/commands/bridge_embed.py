"""`dyncollapse bridge embed`: an encoder's representations and embeddings as .npy files."""

import json
from pathlib import Path

import click

from dyncollapse.bridge.data.image_sets import labelled
from dyncollapse.bridge.evaluation.embed import LABELS
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.training.collapse_monitor import SPACES
from dyncollapse.commands.bridge_encoder import (
    embed_images,
    encoder_options,
    open_encoder,
    saved_whole_or_not,
)
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.help_pages import GroupedCommand
from dyncollapse.commands.json_option import AS_JSON
from dyncollapse.commands.shared import OUT, fail, say, say_saved
from dyncollapse.runtime.folders import whole_folder


@click.command(cls=GroupedCommand)
@encoder_options
@click.option("--space", metavar="representation|embedding|both", default="both", help="What to save.  [both]")
@click.option("--split", metavar="train|test", help="Which images.  [test if there are any, else train]")
@click.option(
    "--views",
    metavar="clean|one-sided|two-sided",
    default="clean",
    help="Unaugmented, with an augmented view besides, or two augmented views.  [clean]",
)
@click.option("--out", type=OUT, help="Folder, new or empty.  [runs/embed-NNNN]")
@AS_JSON
def embed(
    options: EncoderOptions, *, space: str, split: str | None, views: str, out: Path | None, as_json: bool
) -> None:
    """Save an encoder's representations and embeddings as .npy files, float32, one row per image.

    With --views, a second view of the same images goes to NAME_pos.npy, as `dyncollapse diagnose --positives` reads it.
    """
    if space not in (*SPACES, "both"):
        fail(2, f"--space is {space!r}; choose one of {', '.join(SPACES)}, both")
    spaces = SPACES if space == "both" else (space,)
    with refusals():
        opened = open_encoder(options, split)
        checkpoint, images = opened.checkpoint, opened.images
        with saved_whole_or_not(), whole_folder(out, "embed") as (partial, folder):
            embedded = embed_images(checkpoint, images, partial, options, spaces=spaces, views=views)
    names = [f"{name}{'_pos' if k else ''}.npy" for name in spaces for k in range(len(embedded[name]))]
    shapes = {name: list(embedded[name][0].shape) for name in spaces}
    if as_json:
        known = {"matched": checkpoint.matched, "assumptions": list(embedded.assumptions)}
        click.echo(json.dumps({"folder": str(folder), **known, "shapes": shapes, "files": names}))
    say(opened.title, err=as_json)
    for text in embedded.assumptions:
        say(f"assumed: {text}", err=as_json)
    for name, shape in shapes.items():
        say(f"{name}: {shape[0]} images x {shape[1]} dimensions", err=as_json)
    labels = [LABELS] if labelled(images) else []
    say_saved(folder, (*names, *labels, "embed.json"), to_stderr=as_json)
