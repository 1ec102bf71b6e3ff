"""Run `dyncollapse bridge embed`: an encoder's representations and embeddings as .npy files."""

import json
from pathlib import Path

import click

from dyncollapse.bridge.data.image_sets import labelled
from dyncollapse.bridge.evaluation.embed import LABELS
from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.commands.bridge_encoder import (
    embed_images,
    open_encoder,
    saved_whole_or_not,
)
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.shared import note, say, say_saved
from dyncollapse.runtime.folders import whole_folder


def embed(options: EncoderOptions, *, wanted: EmbedOptions, out: Path | None, as_json: bool) -> None:
    """Embed the images, and save the files whole or not at all."""
    if options.seed and wanted.views == "clean":
        note(f"--seed {options.seed} has no effect: --views clean draws no random views")
    with refusals():
        opened = open_encoder(options, wanted.split)
        checkpoint, images = opened.checkpoint, opened.images
        spaces = wanted.spaces or checkpoint.spaces
        with saved_whole_or_not(), whole_folder(out, "embed") as (partial, folder):
            embedded = embed_images(checkpoint, images, partial, options, spaces=spaces, views=wanted.views)
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
