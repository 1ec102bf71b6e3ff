"""`dyncollapse bridge embed`, `diagnose` and `probe`: what is done with an encoder from a file."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.recipe import WIDEST
from dyncollapse.commands.bridge_shared import AS_JSON, in_options, refusals, tell
from dyncollapse.commands.shared import (
    BATCHES,
    EPOCHS,
    OUT,
    SEEDS,
    TEMPERATURES,
    THREADS,
    WORKERS,
    Command,
    fail,
    say,
    say_saved,
    use_machine,
    warn,
)
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.folders import whole_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dyncollapse.bridge.data.images import Data, Images
    from dyncollapse.bridge.evaluation.diagnose import DiagnosedSpaces
    from dyncollapse.bridge.evaluation.load import LoadedEncoder

LOGISTIC_MOST = 100_000  # training images up to which the probe is by logistic regression, unless asked for (ours)


def checkpoint_options(command: Command) -> Command:
    """Give a command the options that find an encoder, and its images."""
    options = (
        click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="A file, or a run's folder."),
        click.option("--data", help="Images.  [those that a run of ours was trained on]"),
        click.option("--arch", help="Of a checkpoint by others, a timm model.  [found out, among ResNets]"),
        click.option(
            "--stem", metavar="imagenet|cifar|cifar-padding-2", help="Likewise its first layers.  [found out]"
        ),
        click.option(
            "--prefix-map", multiple=True, metavar="OLD=NEW", help="Replace a beginning of its tensors' names."
        ),
        click.option(
            "--d0",
            type=click.IntRange(1, WIDEST),
            help="Its embedding is the first d0 dimensions (DirectCLR by others).",
        ),
        click.option(
            "--projector-prefix", metavar="NAME", help="Where its projector is among the tensors' names.  [found out]"
        ),
        click.option(
            "--projector-activation",
            metavar="relu|gelu|tanh|identity|...",
            help="What stands between the projector's layers.  [by its layout, or relu]",
        ),
        click.option(
            "--projector-last",
            metavar="normalise|relu|...",
            help="What follows the projector's last layer: division by its length, or an activation.  [nothing]",
        ),
        click.option(
            "--image-size",
            type=click.IntRange(4, 4096),
            help="Side of the images it takes.  [its own; 224; small stems: 32]",
        ),
        click.option("--augment", metavar="imagenet|cifar|digits", help="Views it was trained on.  [by its stem]"),
        click.option("--trust-checkpoint", is_flag=True, help="Unpickle it: runs whatever code is in it."),
        click.option("--device", default="cpu", help="cpu, cuda or cuda:N.  [cpu]"),
        click.option("--threads", type=THREADS, default=1, help="CPU threads.  [1]"),
        click.option("--workers", type=WORKERS, default=0, help="Processes that read images.  [0: none]"),
        click.option("--batch-size", type=BATCHES, default=256, help="Images at a time.  [256]"),
        click.option("--strict", is_flag=True, help="Stop at an image that cannot be read."),
        click.option("--seed", type=SEEDS, default=0, help="Seed of the augmented views.  [0]"),
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command


@click.command()
@checkpoint_options
@click.option("--space", metavar="representation|embedding|both", default="both", help="What to save.  [both]")
@click.option("--split", metavar="train|test", help="Which images.  [test where there are any]")
@click.option(
    "--views",
    metavar="clean|one-sided|two-sided",
    default="clean",
    help="Plain, with a second view, or two views.  [clean]",
)
@click.option("--out", type=OUT, help="Folder, new or empty.  [runs/embed-NNNN]")
@AS_JSON
def embed(space: str, split: str | None, views: str, out: Path | None, as_json: bool, **given: Any) -> None:
    """Save an encoder's representations and embeddings as .npy files, float32, one row per image.

    With --views, a second view of the same images goes to NAME_pos.npy, as `dyncollapse diagnose --positives` reads it.
    """
    from dyncollapse.bridge.training.collapse_monitor import SPACES

    if space not in (*SPACES, "both"):
        fail(2, f"--space is {space!r}; choose one of {', '.join(SPACES)}, both")
    spaces = SPACES if space == "both" else (space,)
    with refusals():
        from dyncollapse.bridge.data.images import labelled
        from dyncollapse.bridge.evaluation.embed import LABELS

        loaded, images, _, _ = _open(split, given)
        with _told(), whole_folder(out, "embed") as (partial, folder):
            found = _embed(loaded, images, partial, spaces, views, given)
    names = [f"{s}{'_pos' if k else ''}.npy" for s in spaces for k in range(len(found[s]))]
    sizes = {s: list(found[s][0].shape) for s in spaces}
    if as_json:
        told = {"matched": loaded.matched, "assumptions": list(found.assumptions)}
        click.echo(json.dumps({"folder": str(folder), **told, "shapes": sizes, "files": names}))
    say(f"{loaded.path}: {loaded.matched}", err=as_json)
    for text in found.assumptions:
        say(f"assumed: {text}", err=as_json)
    for s, shape in sizes.items():
        say(f"{s}: {shape[0]} images x {shape[1]} dimensions", err=as_json)
    labels = [LABELS] if labelled(images) else []
    say_saved(folder, (*names, *labels, "embed.json"), to_stderr=as_json)


@click.command()
@checkpoint_options
@click.option("--split", metavar="train|test", help="Which images.  [test where there are any]")
@click.option(
    "--views",
    metavar="one-sided|two-sided",
    default="two-sided",
    help="Compare plain with augmented, or two augmented.  [two-sided]",
)
@click.option("--loss", metavar="infonce|dot|ntxent", help="Weigh negatives by this loss's softmax.  [all alike]")
@click.option("--temperature", type=TEMPERATURES, help="Temperature of dot and ntxent.  [0.1]")
@click.option("--keep-embeddings", is_flag=True, help="Leave the .npy files in the folder.")
@click.option(
    "--out",
    type=OUT,
    help="Folder, new or empty.  [diagnosis/ of the run; else runs/diagnose-NNNN]",
)
@AS_JSON
def diagnose(
    split: str | None,
    views: str,
    loss: str | None,
    temperature: float | None,
    keep_embeddings: bool,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say which dimensions of an encoder's representation and embedding collapsed, and why, side by side.

    Also: the alignment of its last layers, and the augmentation's spectrum against the data's (Sigma1 against Sigma0).
    """
    with refusals():
        from dyncollapse.diagnostics.monitor import check_loss

        if views == "clean":
            raise ValueError("--views is 'clean'; choose one of one-sided, two-sided")
        check_loss(loss, temperature, views, 1)
        loaded, images, name, _ = _open(split, given)
        from dyncollapse.bridge.evaluation.diagnose import diagnose_spaces
        from dyncollapse.bridge.training.collapse_monitor import SPACES
        from dyncollapse.commands.bridge_tables import print_both
        from dyncollapse.runtime.progress import progress_bars

        both: DiagnosedSpaces | None = None

        def show() -> None:
            if both is not None:
                print_both(both, f"{loaded.path}: {loaded.matched}", to_stderr=as_json)

        spaces = SPACES if loaded.has_embedding else SPACES[:1]
        at_home = loaded.run / "diagnosis" if loaded.run and out is None else None
        place = whole_folder(out, "diagnose") if at_home is None else _home(at_home)
        with _told(show), place as (partial, folder), _scratch(partial) as temporary:
            where = partial if keep_embeddings else temporary
            found = _embed(loaded, images, where, spaces, views, given)
            steps = ("embeddings", "inputs", *(["pairs"] if loss else []))
            with progress_bars(steps) as advance:
                both = diagnose_spaces(found, loaded.encoder.cpu(), views, advance, loss=loss, temperature=temperature)
            names = _save_both(
                both,
                loaded,
                partial,
                {"split": name, "views": views, "loss": loss, "skipped": found.skipped, **_plain(given)},
            )
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "matched": loaded.matched, **both.as_values()}, allow_nan=False))
    show()
    say_saved(folder, names, to_stderr=as_json)


def _save_both(both: "DiagnosedSpaces", loaded: "LoadedEncoder", folder: Path, config: dict[str, Any]) -> list[str]:
    """Write a folder of each space, the picture and diagnosis.json; the names of what was saved."""
    from dyncollapse.bridge.training.run_folder import DIAGNOSIS
    from dyncollapse.diagnostics import exports as webpage
    from dyncollapse.runtime.canvas import save_picture
    from dyncollapse.runtime.files import write_bytes, write_json
    from dyncollapse.simulation.report import versions

    def draw() -> "Figure":
        from dyncollapse.bridge.evaluation.pictures import draw_spaces

        return draw_spaces(both.reports)

    config |= {"checkpoint": str(loaded.path), "step": loaded.step, "versions": versions("timm", "torchvision")}
    for space, report in both.reports.items():
        (folder / space).mkdir(exist_ok=True)
        told = {"file": f"{loaded.path} ({space})", "assumptions": list(both.assumptions), **config}
        for name, content in webpage.as_files(report, told, tell=warn).items():
            write_bytes(folder / space / name, content)
    if problem := save_picture(folder / "spectra.png", draw):
        warn(problem)
    values = both.as_values() | {"config": config}
    write_json(folder / DIAGNOSIS, values)
    if loaded.run:
        write_json(loaded.run / DIAGNOSIS, values)
    return [DIAGNOSIS, *([] if problem else ["spectra.png"]), *(f"{space}/" for space in both.reports)]


@click.command()
@checkpoint_options
@click.option(
    "--method",
    metavar="logistic|sgd",
    help=f"On stored features, or through crops and flips.  [logistic up to {LOGISTIC_MOST} images, sgd beyond]",
)
@click.option(
    "--subvector", type=click.IntRange(1, WIDEST), metavar="N", help="Probe the first N dimensions only.  [all]"
)
@click.option("--epochs", type=EPOCHS, help="Of sgd.  [100]")
@AS_JSON
def probe(method: str | None, subvector: int | None, epochs: int | None, as_json: bool, **given: Any) -> None:
    """Train a linear classifier on an encoder's frozen representation, and test it.

    The result goes into the run's probes.json, where `dyncollapse bridge table` finds it.
    """
    with refusals():
        from dyncollapse.bridge.data.images import Skipped
        from dyncollapse.bridge.evaluation.probe import (
            METHODS,
            check_classes,
            kept_dimensions,
            logistic_probe,
            sgd_probe,
        )
        from dyncollapse.bridge.models.encoders import representation_dim
        from dyncollapse.bridge.training.run_folder import add_probe
        from dyncollapse.commands.bridge_tables import print_probe
        from dyncollapse.runtime.progress import progress_bars, progress_line

        if method not in (None, *METHODS):
            raise ValueError(f"--method is {method!r}; choose one of {', '.join(METHODS)}")
        loaded, train, _, data = _open("train", given)
        data.check_labels()
        kept_dimensions(subvector, representation_dim(loaded.encoder.backbone))
        check_classes(train.labels)
        test = data.split("test")
        method = method or ("logistic" if len(train) <= LOGISTIC_MOST and epochs is None else "sgd")
        if method == "logistic" and epochs is not None:
            raise ValueError(f"--epochs is {epochs}, but --method logistic has none; drop one of them")
        if method == "logistic":
            with TemporaryDirectory() as temporary:
                rows = []
                for images in (train, test):
                    found = _embed(loaded, images, Path(temporary), ("representation",), "clean", given)
                    rows.append((found["representation"][0].clone(), found.labels))
                with progress_bars(("probe",)):
                    result = logistic_probe(rows[0], rows[1], subvector)
        else:
            skipped = Skipped(train, given["strict"], lambda text: say(text, err=True))
            settings = {name: given[name] for name in ("device", "workers", "seed", "batch_size")}
            with progress_line("steps") as advance:
                result = sgd_probe(
                    loaded,
                    train,
                    test,
                    subvector=subvector,
                    epochs=epochs or 100,
                    skipped=skipped,
                    progress=advance,
                    **settings,
                )
        if loaded.run:
            add_probe(loaded.run, result.as_dict() | {"step": loaded.step})
    if as_json:
        told = {"matched": loaded.matched, "assumptions": list(loaded.assumptions)}
        click.echo(json.dumps(result.as_dict() | told))
    for text in loaded.assumptions:
        say(f"assumed: {text}", err=as_json)
    print_probe(result, to_stderr=as_json)
    if loaded.run:
        say(f"Added to {loaded.run}/probes.json", err=as_json)


def _open(split: str | None, given: dict[str, Any]) -> tuple["LoadedEncoder", "Images", str, "Data"]:
    """The encoder of --checkpoint on its device, the images that --data and --split name, and all of --data."""
    from dyncollapse.bridge.data.images import open_data
    from dyncollapse.bridge.evaluation.load import load_encoder

    use_machine(given["device"], given["threads"], given["workers"])
    pairs = [text.partition("=") for text in given["prefix_map"]]
    if wrong := next((text for text in given["prefix_map"] if "=" not in text), None):
        raise ValueError(f"--prefix-map is {wrong!r}; write OLD=NEW")
    names = ["arch", "stem", "d0", "image_size", "augment"]
    names += ["projector_prefix", "projector_activation", "projector_last"]
    loaded = load_encoder(
        given["checkpoint"],
        renames={old: new for old, _, new in pairs},
        trust=given["trust_checkpoint"],
        **{name: given[name] for name in names},
    )
    loaded = loaded.reworded(in_options)
    data = open_data(_data_name(loaded, given), tell)
    split = split or ("train" if data.test is None else "test")
    if split not in ("train", "test"):
        raise ValueError(f"--split is {split!r}; choose one of train, test")
    images = data.split(split)
    if images.channels != loaded.channels:
        raise ValueError(
            f"--data has images of {images.channels} channel(s), and the encoder takes {loaded.channels}; give others"
        )
    if given["data"] not in (None, loaded.data):
        loaded = replace(loaded, run=None)  # what other images say is no result of the run
    return loaded, images, split, data


def _data_name(loaded: "LoadedEncoder", given: dict[str, Any]) -> str:
    """The images that --data names, or those that a run was trained on."""
    name = given["data"] or loaded.data
    if name is None:
        raise ValueError(f"--data is not given, and {loaded.path} does not say which images; name a folder")
    return str(name)


def _embed(loaded: "LoadedEncoder", images: Any, folder: Path, spaces: Any, views: str, given: dict[str, Any]) -> Any:
    from dyncollapse.bridge.data.images import Skipped
    from dyncollapse.bridge.evaluation.embed import VIEWS
    from dyncollapse.bridge.evaluation.embed import embed as embed_images
    from dyncollapse.runtime.progress import progress_line

    if views not in VIEWS:
        raise ValueError(f"--views is {views!r}; choose one of {', '.join(VIEWS)}")
    skipped = Skipped(images, given["strict"], lambda text: say(text, err=True))
    names = ("batch_size", "device", "workers", "seed")
    settings = {name: given[name] for name in names}
    with progress_line("images") as advance:
        return embed_images(
            loaded, images, folder, spaces=spaces, views=views, skipped=skipped, progress=advance, **settings
        )


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}


@contextmanager
def _home(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of a run in which each file replaces that of an earlier diagnosis, held meanwhile."""
    from dyncollapse.runtime.files import remove_partial
    from dyncollapse.runtime.folders import held

    folder.mkdir(exist_ok=True)
    with held(folder):
        remove_partial(folder)
        yield folder, folder


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder in the folder, for what is too large for the system's own."""
    from dyncollapse.runtime.files import partial_path

    path = partial_path(folder / "embeddings")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _told(show: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Say of what cannot be written, and of Ctrl-C, that nothing was saved; before the former, `show` what there is."""
    try:
        yield
    except KeyboardInterrupt:
        fail(130, "Interrupted; nothing was saved.")
    except CannotWrite as error:
        show()
        fail(1, f"{error.filename} could not be written ({error.strerror}); nothing was saved")
