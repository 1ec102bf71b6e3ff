"""What a fresh interpreter pays before anything is computed: imports and the command's help."""

import subprocess
import sys

import pytest

import dyncollapse

NAMES = ", ".join(name for name in dyncollapse.__all__ if name.isidentifier())

pytestmark = pytest.mark.benchmark(group="start")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import torch", id="import torch"),
        pytest.param("import dyncollapse", id="import dyncollapse"),
        pytest.param(f"from dyncollapse import {NAMES}", id="every public name of dyncollapse"),
        pytest.param("import torch; import scipy.integrate, scipy.linalg, scipy.optimize", id="import torch and scipy"),
    ],
)
def test_import(benchmark, code):
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5, warmup_rounds=1)


def test_help(benchmark):
    command = [sys.executable, "-m", "dyncollapse", "--help"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    benchmark.pedantic(subprocess.run, (command,), quiet, rounds=5, warmup_rounds=1)
