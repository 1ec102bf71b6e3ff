"""`dyncollapse bridge pretrain`: a run from its options, begun or resumed."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.recipe import Recipe, resolve
from dyncollapse.commands.bridge_shared import AS_JSON, in_options, refusals, tell
from dyncollapse.commands.shared import OUT, fail, say, say_saved, setting_options, use_machine, warn
from dyncollapse.runtime.files import CannotWrite, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command()
@setting_options(Recipe)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings as TOML, by these names; options go before it."
)
@click.option("--out", type=OUT, help="Run folder, new or empty.  [runs/pretrain-NNNN]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, from its last checkpoint.")
@AS_JSON
def pretrain(config: Path | None, out: Path | None, resume: bool, as_json: bool, **given: Any) -> None:
    """Train an encoder by contrastive learning: SimCLR with any of the paper's projectors, or DirectCLR.

    Under torchrun (torchrun --nproc-per-node 8 -m dyncollapse.bridge pretrain ...) all processes train as one. Ctrl-C
    saves a checkpoint; --resume --out DIR goes on. With one seed a resumed run ends where an uninterrupted one does.
    """
    with refusals():
        recipe = _resumed(out, given) if resume else resolve(given, config)
        if resume and config:
            raise ValueError("--config and --resume: the run in --out has its settings; drop --config")
        use_machine(recipe.device, recipe.threads, recipe.workers)
        from dyncollapse.bridge.training.distributed import join_processes

        with join_processes(recipe.device) as process:
            process.share(recipe.batch_size)
            with _run_folder(out, resume, process) as folder:
                _pretrain(recipe, folder, process, as_json)


def _resumed(out: Path | None, given: dict[str, Any]) -> Recipe:
    from dyncollapse.bridge.training.pretraining import same_run
    from dyncollapse.bridge.training.run_folder import read_run
    from dyncollapse.runtime.folders import is_free

    if out is None:
        raise ValueError("--resume goes on with a run; name its folder with --out")
    if not out.exists() or is_free(out):
        raise ValueError(f"{out} is no run, or was stopped before it began; leave out --resume")
    old = read_run(out).recipe
    new = replace(old, **{name: value for name, value in given.items() if value is not None})
    same_run(old, new)
    return new


@contextmanager
def _run_folder(out: Path | None, resume: bool, process: Any) -> Iterator[Path]:
    """The folder that the first process holds, for all."""
    from dyncollapse.bridge.training.distributed import gather_values
    from dyncollapse.bridge.training.run_folder import CONFIG
    from dyncollapse.runtime.folders import claimed_folder, held

    with ExitStack() as stack:
        folder: Any = None
        if process.first:
            try:
                if resume and out is not None:
                    stack.enter_context(held(out))
                    folder = out
                else:
                    if out is not None and (out / CONFIG).exists():
                        raise ValueError(
                            f"--out {out} already holds files, a run's; add --resume, or name a new folder"
                        )
                    folder = stack.enter_context(claimed_folder(out, "pretrain"))
            except (ValueError, OSError) as error:
                folder = error
        folder = gather_values(folder, process.count)[0]
        if isinstance(folder, Exception):
            raise folder
        yield folder


def _pretrain(recipe: Recipe, folder: Path, process: Any, as_json: bool) -> None:
    from dyncollapse.bridge.training.pretraining import LossDiverged, Progress, Stopped, train_in
    from dyncollapse.bridge.training.training_log import read_log
    from dyncollapse.runtime.folders import is_free
    from dyncollapse.runtime.progress import progress_line

    again = f"To go on: dyncollapse bridge pretrain --resume --out {folder}"
    try:
        with progress_line("steps") if process.first else _silent() as advance:
            train_in(folder, recipe, process, Progress(advance, tell))
    except Stopped as stopped:
        if not process.first:
            raise SystemExit(130) from None  # one of them tells
        _save_curves(folder)
        fail(130, f"{stopped}; its checkpoint is saved. {again}")
    except KeyboardInterrupt:
        kept = "Nothing was saved." if is_free(folder) else f"What was saved until then is in {folder}/. {again}"
        fail(130, f"Interrupted. {kept}")
    except LossDiverged as error:
        fail(1, f"{in_options(error.text)}. Earlier checkpoints are in {folder}/")
    except CannotWrite as error:
        kept = "Nothing was saved." if is_free(folder) else f"What was saved before is whole. {again}"
        fail(1, f"{error.filename} could not be written ({error.strerror}). {kept}")
    if not process.first:
        return
    pictures = _save_curves(folder)
    last = read_log(folder / "log.jsonl")[-1]
    journals = [name for name in ("log.jsonl", "monitor.jsonl") if (folder / name).exists()]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **read_json(folder / "config.json"), "last": last}))
    speed = f", {last['images_per_second']:.4g} images/s" if "images_per_second" in last else ""
    say(f"step {last['step']}: loss {last['loss']:.4g}{speed}", err=as_json)
    say_saved(folder, ("config.json", *journals, *pictures, "checkpoints/"), to_stderr=as_json)
    say(f"Next: dyncollapse bridge diagnose --checkpoint {folder}", err=as_json)


def _save_curves(folder: Path) -> list[str]:
    """Draw the journals, and warn where that fails; the names of what was drawn."""
    from dyncollapse.bridge.training.training_log import read_log, read_monitor
    from dyncollapse.runtime.canvas import save_picture

    log, monitor = read_log(folder / "log.jsonl"), read_monitor(folder / "monitor.jsonl")
    if not log:
        return []

    def draw() -> "Figure":
        from dyncollapse.bridge.evaluation.pictures import draw_curves

        return draw_curves(log, monitor)

    if problem := save_picture(folder / "curves.png", draw):
        warn(problem)
        return []
    return ["curves.png"]


@contextmanager
def _silent() -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None
