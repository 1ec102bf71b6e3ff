"""`dyncollapse bridge check` and `table`: runs beside the paper's tables."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dyncollapse.commands.bridge_shared import AS_JSON, refusals
from dyncollapse.commands.shared import EPOCHS, OUT, THREADS, FiniteRange, fail, say, say_saved, warn
from dyncollapse.runtime.files import CannotWrite

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--markdown", is_flag=True, help="Print the table for a document.")
@AS_JSON
def table(folders: tuple[Path, ...], markdown: bool, as_json: bool) -> None:
    """Set runs beside the paper's Tables 1 and 2, mean and standard deviation over seeds, and say what differs.

    FOLDERS are runs of `bridge pretrain`, or folders that hold some.
    """
    if markdown and as_json:
        fail(2, "--markdown and --json cannot share stdout; choose one")
    with refusals():
        from dyncollapse.bridge.evaluation.paper_tables import as_markdown, compare
        from dyncollapse.bridge.training.run_folder import find_runs
        from dyncollapse.commands.bridge_tables import print_table

        compared = compare(find_runs(folders, lambda text: say(text, err=True)))
    if as_json:
        click.echo(json.dumps(compared, allow_nan=False))
    if markdown:
        for line in as_markdown(compared["rows"]).splitlines():
            say(line, err=False)
    print_table(compared, to_stderr=as_json or markdown)


@click.command()
@click.option("--seeds", type=click.IntRange(1, 100), help="Runs of each projector.  [3]")
@click.option("--epochs", type=EPOCHS, help="Of each run.  [30; 15 with --short]")
@click.option("--short", is_flag=True, help="Only the projectors of Table 1, and fewer sub-vectors.")
@click.option("--workers", type=THREADS, help="Runs at a time, a core each.  [as many as there are cores]")
@click.option("--full", is_flag=True, help="Prove the real scale on one device instead, part by part.")
@click.option("--tiny", is_flag=True, help="With --full: every part at toy size.")
@click.option("--device", help="With --full: cuda, cuda:N or cpu.  [cuda]")
@click.option("--cifar", type=click.Path(path_type=Path), help="With --full: a folder of CIFAR-10, or its archive.")
@click.option("--minutes", type=FiniteRange(0, 10**4, min_open=True), help="With --full: for all of it.  [9]")
@click.option("--out", type=OUT, help="Folder, new or of an earlier check.  [runs/check-NNNN]")
@AS_JSON
def check(
    seeds: int | None,
    epochs: int | None,
    short: bool,
    workers: int | None,
    full: bool,
    tiny: bool,
    device: str | None,
    cifar: Path | None,
    minutes: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train a small ResNet on digits under every projector, probe and diagnose each, and set it beside the paper.

    Needs no data and no GPU, and at most 12 minutes on two cores. Leaves a run's folder for each, table.json, table.md
    and figures.png, small versions of the paper's Figures 2, 7b, 9 and 12. The same command goes on after Ctrl-C.

    --full is another check: whether, and how fast, ResNet-50 at 224 x 224, 50 000 embeddings, their covariances, 4096
    toy networks, resumption and, given CIFAR-10, the tables' rows run on one GPU. It leaves report.json, summary.md
    and pictures, and exits with 1 where a part failed.
    """
    ours = {"--seeds": seeds, "--epochs": epochs, "--short": short, "--workers": workers}
    of_full = {"--tiny": tiny, "--device": device, "--cifar": cifar, "--minutes": minutes}
    if wrong := [name for name, value in (ours if full or tiny else of_full).items() if value]:
        fail(2, f"{', '.join(wrong)}: not {'with' if full or tiny else 'without'} --full; drop it, or change that")
    if full or tiny:
        from dyncollapse.commands.bridge_real_scale import check_full

        check_full(device or "cuda", tiny=tiny, cifar=cifar, minutes=minutes or 9.0, out=out, as_json=as_json)
        return
    with refusals():
        from dyncollapse.bridge.evaluation.digits_check import SEEDS, check_recipes, run_check
        from dyncollapse.bridge.training.pretraining import Stopped
        from dyncollapse.runtime.folders import claimed_folder
        from dyncollapse.runtime.progress import progress_line
        from dyncollapse.runtime.threads import check_count

        if workers is not None:
            check_count("workers", workers)
        recipes = check_recipes(seeds or SEEDS, short=short, epochs=epochs)
        # A check that was killed at its start has left folders of runs, and nothing in them.
        with claimed_folder(out, "check", lambda folder: any((folder / name).is_dir() for name in recipes)) as folder:
            again = f"dyncollapse bridge check --out {folder} with the same options goes on"
            try:
                with progress_line("steps") as advance:
                    failures = run_check(folder, recipes, workers, advance)
                found = _summarise(folder) | {"failures": failures}
            except (KeyboardInterrupt, Stopped):
                fail(130, f"Interrupted; what was saved until then is in {folder}/, and {again}")
            except CannotWrite as error:
                fail(1, f"{error.filename} could not be written ({error.strerror}); {again}")
    from dyncollapse.commands.bridge_tables import print_table

    if as_json:
        click.echo(json.dumps({"folder": str(folder), **found}, allow_nan=False))
    print_table(found, to_stderr=as_json)
    pictures = [path.name for path in folder.glob("figures.png")]
    say_saved(folder, ("table.json", "table.md", *pictures, "and a folder of each run"), to_stderr=as_json)
    if failures:
        fail(1, "; ".join(f"{name}: {text}" for name, text in failures.items()))


def _summarise(folder: Path) -> dict[str, object]:
    """Compare what there is with the paper, and save table and figures."""
    from dyncollapse.bridge.evaluation.digits_check import SWEPT
    from dyncollapse.bridge.evaluation.paper_tables import as_markdown, compare
    from dyncollapse.bridge.training.run_folder import find_runs
    from dyncollapse.runtime.canvas import save_picture
    from dyncollapse.runtime.files import write_bytes, write_json

    def draw() -> "Figure":
        from dyncollapse.bridge.evaluation.pictures import draw_check

        return draw_check(runs)

    runs = find_runs([folder])
    compared = compare([run for run in runs if not run.folder.name.startswith(SWEPT)])
    write_json(folder / "table.json", compared)
    write_bytes(folder / "table.md", as_markdown(compared["rows"]).encode())
    if problem := save_picture(folder / "figures.png", draw):
        warn(problem)
    return {**compared}
