"""Run `dyncollapse bridge pretrain`: begin a run, or resume one."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.data.images import check_name
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.distributed import Process, gather_values, join_processes
from dyncollapse.bridge.training.loop import LossDiverged, Stopped
from dyncollapse.bridge.training.pretraining import Progress, same_run, train_in
from dyncollapse.bridge.training.run_folder import CONFIG, read_run
from dyncollapse.bridge.training.training_log import read_log, read_monitor
from dyncollapse.commands.bridge_shared import in_options, note_in_options, refusals
from dyncollapse.commands.shared import as_options, fail, say, say_saved, use_machine, warn
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import CannotWrite, read_json
from dyncollapse.runtime.folders import check_folder, claimed_folder, empty, held, is_free
from dyncollapse.runtime.progress import progress_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pretrain(config: Path | None, out: Path | None, resume: bool, as_json: bool, **settings: Any) -> None:
    """Train the encoder of a recipe, or continue its run."""
    with refusals():
        recipe = _resumed(out, settings) if resume else resolve(settings, config)
        if resume and config:
            raise ValueError("--config and --resume: the run in --out has its settings; drop --config")
        check_name(recipe.data)  # before the device, whose default a new user meets without a GPU
        use_machine(recipe.device, recipe.threads, recipe.workers)
        with join_processes(recipe.device) as process:
            process.share(recipe.batch_size)
            with _run_folder(out, resume, process) as folder, _taken_back(folder, resume, process):
                _train(recipe, folder, process)
                if process.first:
                    _show(folder, as_json)


def _resumed(out: Path | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of the run in `out`, with the settings that may change. Raises ValueError if there is no run."""
    if out is None:
        raise ValueError("--resume continues a run; name its folder with --out")
    if out.exists():
        check_folder(out, "name the folder of a run")
    if not out.exists():
        raise ValueError(f"{out} does not exist; check --out, or leave out --resume to begin a new run there")
    if is_free(out):
        raise ValueError(
            f"{out} is empty, with no run to resume; check --out, or leave out --resume to begin a new run there"
        )
    old = read_run(out).recipe
    new = replace(old, **{name: value for name, value in settings.items() if value is not None})
    same_run(old, new)
    return new


@contextmanager
def _run_folder(out: Path | None, resume: bool, process: Process) -> Iterator[Path]:
    """The folder of the run, which the first process claims for all processes."""
    with ExitStack() as stack:
        folder: Path | Exception | None = None
        if process.first:
            try:
                folder = stack.enter_context(_held_folder(out, resume))
            except (ValueError, OSError) as error:
                folder = error
        shared = gather_values(folder, process.count)[0]
        if isinstance(shared, Exception):
            raise shared
        assert shared is not None  # the first process shares a folder or an error
        yield shared


@contextmanager
def _held_folder(out: Path | None, resume: bool) -> Iterator[Path]:
    """The folder of the run, held until the end of the block."""
    if resume and out is not None:
        with held(out):
            yield out
        return
    if out is not None and (out / CONFIG).exists():
        raise ValueError(f"--out {out} already holds files, a run's; add --resume, or name a new folder")
    with claimed_folder(out, "pretrain") as folder:
        yield folder


@contextmanager
def _taken_back(folder: Path, resume: bool, process: Process) -> Iterator[None]:
    """Empty the folder of a new run that fails before its first checkpoint, for example at a damaged image.

    The same command can then be given again. After a checkpoint, the message says how to continue.
    """
    try:
        yield
    except Exception as error:
        if process.first and not resume:
            if not checkpoints(folder):
                empty(folder)
            elif isinstance(error, ValueError):
                raise ValueError(f"{as_options(error)}. {_again(folder)}") from None
        raise


def _again(folder: Path) -> str:
    return f"To continue: dyncollapse bridge pretrain --resume --out {folder}"


def _train(recipe: Recipe, folder: Path, process: Process) -> None:
    """Train to the end of the recipe; if that fails, report what is saved and how to continue."""
    again = _again(folder)
    try:
        with progress_line("steps") if process.first else _silent() as advance:
            train_in(folder, recipe, process, Progress(advance, note_in_options))
    except Stopped as stopped:
        if not process.first:
            raise SystemExit(130) from None  # the first process reports it for all
        _save_curves(folder)
        fail(130, f"{stopped}; its checkpoint is saved. {again}")
    except KeyboardInterrupt:
        kept = "Nothing was saved." if is_free(folder) else f"The results so far are in {folder}/. {again}"
        fail(130, f"Interrupted. {kept}")
    except LossDiverged as error:
        kept = f"Earlier checkpoints are in {folder}/"
        fail(1, f"{in_options(error.text)}. {kept if checkpoints(folder) else f'The losses are in {folder}/log.jsonl'}")
    except CannotWrite as error:
        kept = "Nothing was saved." if is_free(folder) else f"What was saved before is whole. {again}"
        fail(1, f"{error.filename} could not be written ({error.strerror}). {kept}")


def _show(folder: Path, as_json: bool) -> None:
    """Draw the curves of a finished run, and print its last loss and where the files are."""
    pictures = _save_curves(folder)
    last = next(reversed(read_log(folder / "log.jsonl")), None)  # None when log.jsonl of a finished run was deleted
    journals = [name for name in ("log.jsonl", "monitor.jsonl") if (folder / name).exists()]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **read_json(folder / "config.json"), "last": last}))
    if last is not None:
        speed = f", {last['images_per_second']:.4g} images/s" if "images_per_second" in last else ""
        say(f"step {last['step']}: loss {last['loss']:.4g}{speed}", err=as_json)
    folders = [f"{name}/" for name in ("checkpoints", "tensorboard") if (folder / name).is_dir()]
    say_saved(folder, ("config.json", *journals, *pictures, *folders), to_stderr=as_json)
    say(f"Next: dyncollapse bridge diagnose --checkpoint {folder}", err=as_json)


def _save_curves(folder: Path) -> list[str]:
    """Draw the logs, and warn if that fails; return the names of what was drawn."""
    log, monitor = read_log(folder / "log.jsonl"), read_monitor(folder / "monitor.jsonl")
    if not log:
        return []

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.bridge.evaluation.pictures import draw_curves

        return draw_curves(log, monitor)

    if problem := save_picture(folder / "curves.png", draw):
        warn(problem)
        return []
    return ["curves.png"]


@contextmanager
def _silent() -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None
