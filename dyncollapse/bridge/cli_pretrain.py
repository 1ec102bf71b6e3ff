"""`dyncollapse bridge pretrain`: a run from its options, begun or resumed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dyncollapse.bridge.cli_common import AS_JSON, refusals, remove_empty
from dyncollapse.bridge.recipe import Recipe, resolve
from dyncollapse.cli_shared import fail, say, say_saved, setting_options, use_machine
from dyncollapse.files import read_json


@click.command()
@setting_options(Recipe)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings as TOML, by these names; options go before it."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder, new or empty.  [runs/pretrain-NNNN]")
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
        from dyncollapse.bridge.processes import join_processes

        with join_processes(recipe.device) as process:
            process.share(recipe.batch_size)
            folder = _run_folder(out, resume, process)
            _pretrain(recipe, folder, process, as_json)


def _resumed(out: Path | None, given: dict[str, Any]) -> Recipe:
    from dyncollapse.bridge.experiments import read_run
    from dyncollapse.bridge.pretraining import same_run

    if out is None:
        raise ValueError("--resume goes on with a run; name its folder with --out")
    old = read_run(out).recipe
    new = replace(old, **{name: value for name, value in given.items() if value is not None})
    same_run(old, new)
    return new


def _run_folder(out: Path | None, resume: bool, process: Any) -> Path:
    """The folder that the first process makes, for all."""
    from dyncollapse.bridge.processes import gather_values
    from dyncollapse.report import reserve_folder

    folder: Any = out
    if process.first and not (resume and out):
        try:
            folder = reserve_folder(out, "pretrain")
        except ValueError as error:
            folder = error
    folder = gather_values(folder, process.count)[0]
    if isinstance(folder, ValueError):
        raise folder
    assert folder is not None
    return Path(folder)


def _pretrain(recipe: Recipe, folder: Path, process: Any, as_json: bool) -> None:
    from dyncollapse.bridge.journal import read_journal
    from dyncollapse.bridge.pretraining import LossDiverged, Progress, Stopped
    from dyncollapse.bridge.pretraining import pretrain as train
    from dyncollapse.progress import progress_line

    again = f"dyncollapse bridge pretrain --resume --out {folder}"
    try:
        with progress_line("steps") if process.first else _silent() as advance:
            train(recipe, folder, process, Progress(advance, lambda text: say(text, err=True)))
    except Stopped as stopped:
        if not process.first:
            raise SystemExit(130) from None  # one of them tells
        _draw_curves(folder)
        fail(130, f"{stopped}; its checkpoint is saved. To go on: {again}")
    except KeyboardInterrupt:
        fail(130, f"Interrupted. What was saved until then is in {folder}/. To go on: {again}")
    except LossDiverged as error:
        fail(1, f"{error}. Earlier checkpoints are in {folder}/")
    except OSError as error:
        fail(2, f"{folder} could not be written ({error.strerror}); earlier checkpoints are whole. To go on: {again}")
    finally:
        if process.first:
            remove_empty(folder)
    if not process.first:
        return
    _draw_curves(folder)
    last = read_journal(folder / "log.jsonl")[-1]
    journals = [name for name in ("log.jsonl", "monitor.jsonl") if (folder / name).exists()]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **read_json(folder / "config.json"), "last": last}))
    speed = f", {last['images_per_second']:.4g} images/s" if "images_per_second" in last else ""
    say(f"step {last['step']}: loss {last['loss']:.4g}{speed}", err=as_json)
    say_saved(folder, ("config.json", *journals, "curves.png", "checkpoints/"), to_stderr=as_json)
    say(f"Next: dyncollapse bridge diagnose --checkpoint {folder}", err=as_json)


def _draw_curves(folder: Path) -> None:
    from dyncollapse.bridge.journal import read_journal
    from dyncollapse.bridge.pictures import draw_curves
    from dyncollapse.files import write_png

    log, monitor = (read_journal(folder / name) for name in ("log.jsonl", "monitor.jsonl"))
    if log:
        write_png(folder / "curves.png", draw_curves(log, monitor))


@contextmanager
def _silent() -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None
