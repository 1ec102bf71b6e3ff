"""The wheel holds everything that the package needs; tests/wheel.py uses it in empty environments."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
MADE = {".pyc", ".pyo", ".nbc", ".nbi"}  # the last two by numba


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(PACKAGE.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    paths = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in MADE}
    assert held == {path.relative_to(PACKAGE.parent).as_posix() for path in paths}
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_the_wheel_runs_away_from_the_checkout(wheel, tmp_path):
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    environment = {**os.environ, "PYTHONPATH": str(place)}

    def run(*words):
        command = [sys.executable, "-P", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert Path(run("-c", "import dyncollapse; print(dyncollapse.__file__)").strip()).is_relative_to(place)
    assert "Which dimensions of a toy network collapse" in run("-m", "dyncollapse", "--help")
    assert "rho" in run("-m", "dyncollapse", "help", "rho")  # a page that is no module
