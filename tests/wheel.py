"""Build the wheel, install it into an empty environment of each Python at hand, and use it: `python tests/wheel.py`.

The environment gets the wheel alone first, then one extra after the other; after each, commands run that need it.
"""

import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
SMALL = ["simulate", "--dim", "4", "--batch-size", "16", "--pool", "64", "--steps", "30", "--runs", "2"]
SAVE = "import numpy; numpy.save('z.npy', numpy.random.default_rng(0).normal(size=(200, 16)))"
PRETRAIN = ["bridge", "pretrain", "--data", "digits", "--epochs", "1", "--out", "run"]
FRAME = "import dyncollapse; dyncollapse.simulate(dim=4, dynamics=('population',)).to_pandas().to_csv('rows.csv')"
PARQUET = "import numpy, pandas; pandas.DataFrame(numpy.load('z.npy')).add_prefix('z_').to_parquet('z.parquet')"
HDF5 = "import h5py, numpy; h5py.File('z.h5', 'w')['z'] = numpy.load('z.npy')"
METRIC = "from dyncollapse.integrations.torchmetrics import CollapseMetric; CollapseMetric(8)"
SAVED = (
    "import datasets, numpy; kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(2));"
    "images = numpy.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), 'u1');"
    "columns = dict(image=list(images), label=[0, 1] * 20);"
    "datasets.Dataset.from_dict(columns, features=kinds).save_to_disk('saved')"
)
PREDICT = [
    "predict",
    "--data",
    "saved",
    "--image-size",
    "8",
    "--directions",
    "4",
    "--loss",
    "spectral",
    "--out",
    "fates",
]
# What must work with each extra: arguments of the command line, or code.
USES: dict[str, list[list[str] | str]] = {
    "": [["--help"], [*SMALL, "--out", "toy"], SAVE, ["diagnose", "z.npy", "--out", "report"], ["verify", "--help"]],
    "tables": [FRAME, PARQUET, ["diagnose", "z.parquet"]],
    "hdf5": [HDF5, ["diagnose", "z.h5"]],
    "bridge": [PRETRAIN, ["bridge", "diagnose", "--checkpoint", "run"]],
    "datasets": [SAVED, PREDICT],
    "cluster": ["import distributed, submitit"],
    "explore": [["explore", "--copy", "page.py"], "import runpy; runpy.run_path('page.py')"],
    "integrations": [METRIC],
}


def main() -> None:
    """Build, install and use the wheel; stop at the first command that fails."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the wheel goes (default: dist)")
    parser.add_argument("--extras", default=",".join(USES).lstrip(","), help="extras to try, or an empty text for none")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, help=f"commands (default: {' '.join(PYTHONS)})")
    arguments = parser.parse_args()
    wheel = build(arguments.dist)
    extras = ["", *(name for name in arguments.extras.split(",") if name)]
    for python in filter(runs, arguments.pythons):
        with TemporaryDirectory() as folder:
            use(python, wheel, extras, Path(folder))
    missing = ", ".join(python for python in arguments.pythons if not runs(python))
    say(f"not at hand, so not tried: {missing}" if missing else "all of these Pythons were tried")


def runs(python: str) -> bool:
    """Whether a Python is at hand and starts, which a version manager's name for one that is not chosen does not."""
    return (
        shutil.which(python) is not None
        and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    )


def build(dist: Path) -> Path:
    """Build the source distribution, and the wheel from that; the wheel's path."""
    with TemporaryDirectory() as made:
        run([sys.executable, "-m", "build", "--outdir", made, str(ROOT)])
        (wheel,) = Path(made).glob("*.whl")
        dist.mkdir(parents=True, exist_ok=True)
        for path in Path(made).iterdir():
            shutil.copy(path, dist)
        return dist / wheel.name


def use(python: str, wheel: Path, extras: list[str], folder: Path) -> None:
    """Install the wheel with one extra after the other, and run what needs each."""
    run([python, "-m", "venv", str(folder / "env")])
    inside = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for extra in extras:
        say(f"{python}: {wheel.name}" + (f", with the extra {extra}" if extra else ", without extras"))
        wanted = f"dyncollapse[{extra}] @ {wheel.resolve().as_uri()}" if extra else str(wheel.resolve())
        run([str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted])
        for deed in USES[extra]:
            words = ["-c", deed] if isinstance(deed, str) else ["-m", "dyncollapse", *deed]
            run([str(inside), "-P", *words], folder)


def run(words: list[str], folder: Path | None = None) -> None:
    """Run a command, and end with what it said if it fails."""
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(words)} failed with {result.returncode}:\n{result.stdout}{result.stderr}")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
