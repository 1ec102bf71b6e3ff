"""Draw every figure: `python figures [--quick] [--out DIR]` runs the scripts beside this file, a few at a time."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).parent


def scripts() -> list[Path]:
    """List the figure scripts: one per figure of the paper (figNN_*), then those that go beyond it (beyond_*)."""
    return [*sorted(HERE.glob("fig[0-9]*.py")), *sorted(HERE.glob("beyond_*.py"))]


def draw_all(arguments: list[str]) -> int:
    """Run all scripts with the given arguments and report on each; return 1 when one failed, else 0."""
    console = Console()
    failed = []
    columns = (
        TextColumn("figures"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as executor:
        bar = progress.add_task("", total=len(scripts()))
        running = {executor.submit(_run, script, arguments): script for script in scripts()}
        for finished in as_completed(running):
            script, result = running[finished], finished.result()
            if result.returncode:
                failed.append(script.name)
                console.print(f"FAILED {script.name}\n{result.stderr.strip()}", style="red", markup=False)
            else:
                console.print(result.stdout.strip(), markup=False, highlight=False, soft_wrap=True)
            waiting = [s.stem for f, s in running.items() if not f.done()]
            progress.update(bar, advance=1, description=", ".join(waiting))
    if failed:
        console.print(f"{len(failed)} of {len(running)} figures failed: {', '.join(failed)}", style="red")
    return 1 if failed else 0


def _run(script: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(draw_all(sys.argv[1:]))
