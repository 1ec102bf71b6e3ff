"""What numba compiles gives the same bits from the disk as in the process that compiled it."""

import ast
import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import config, typeof

import dyncollapse
from dyncollapse.dynamics.compile_kernels import compile_kernels
from dyncollapse.model import _forces_compiled
from dyncollapse.runtime.compiled import compiled

MODULES = sorted(Path(dyncollapse.__file__).parent.rglob("*_compiled.py"))


def functions(path):
    """Functions of a file by name, with the names of their decorators and of what they call."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            calls = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and hasattr(call.func, "id")}
            found[node.name] = ({getattr(mark, "id", None) for mark in node.decorator_list}, calls)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_compiled_functions_call_none_that_has_a_version_of_its_own(path):
    found = functions(path)
    whole = {name for name, (marks, _) in found.items() if "compiled" in marks}
    assert whole
    for name, (_, calls) in found.items():
        assert not calls & whole, name


def test_all_can_be_compiled_beforehand():
    compile_kernels()
    for path in MODULES:
        module = importlib.import_module(f"dyncollapse.{path.parent.name}.{path.stem}")
        for name, (marks, _) in functions(path).items():
            if "compiled" in marks:
                assert getattr(module, name).signatures, name
    assert {signature[1].dtype.bitwidth for signature in _forces_compiled.dot_forces.signatures} == {32, 64}


# What flows and SGD do, and the types of arguments with which they have called each compiled function.
USED = """
import importlib, json, sys, torch
from dyncollapse import GaussianTask, Objective, population_flow, sample_flow, train
from dyncollapse.model.forces import mean_force

task = GaussianTask.block(2, 1)
pairs, weights = task.sample(3, torch.Generator().manual_seed(0), (1,)), 0.1 * torch.ones(1, 2, 2)
for loss, constant in (("infonce", None), ("dot", 1.0)):
    for kind in (torch.float32, torch.float64):
        mean_force(weights.to(kind), pairs.to(kind), loss, constant)
        train((weights.to(kind),), pairs.to(kind), steps=1, lr=0.1, objective=Objective(loss, constant))
    sample_flow((weights.double(),), pairs, 0.1, objective=Objective(loss, constant), method="CVODE")
wide = 0.1 * torch.ones(16, 16, dtype=torch.float64)
population_flow((wide, wide), GaussianTask.block(16, 1), 100.0)  # large and stiff enough for a preconditioner
called = [getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in sys.argv[1:]]
print(json.dumps({name: sorted(map(str, one.signatures)) for name, one in zip(sys.argv[1:], called)}))
"""


def test_flows_and_sgd_call_what_is_compiled_beforehand(monkeypatch):
    listed = {}

    def note(function, *arguments):
        listed.setdefault(f"{function.__module__}.{function.__name__}", []).append(str(arguments))

    monkeypatch.setattr("dyncollapse.dynamics.compile_kernels.compile_for", note)
    compile_kernels()
    done = subprocess.run([sys.executable, "-c", USED, *listed], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {name: sorted(kinds) for name, kinds in listed.items()}


def test_compiling_beforehand_takes_no_torch():
    code = "import sys, dyncollapse.dynamics.compile_kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_function_is_compiled_where_nothing_can_be_written(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])

    @compiled
    def doubled(x):
        return 2 * x

    x = np.arange(3.0)
    assert (doubled(x) == 2 * x).all()
    assert list(doubled.signatures) == [(typeof(x),)]


def made():
    @compiled
    def doubled(x):
        return 2 * x

    return doubled


@pytest.mark.parametrize("damaged", [".nbi", ".nbc"])
def test_damaged_files_are_replaced(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    x = np.arange(3.0)
    made()(x)
    kept = {path: path.read_bytes() for path in tmp_path.rglob(f"*{damaged}")}
    assert kept
    for path, content in kept.items():
        path.write_bytes(content[: len(content) // 2])
    assert (made()(x) == 2 * x).all()
    read = made()
    assert (read(x) == 2 * x).all()
    assert sum(read.stats.cache_hits.values()) == 1


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def test_what_is_compiled_is_logged_and_what_is_kept_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    logger, records = logging.getLogger("dyncollapse.runtime.compiled"), Records()
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    made()(np.arange(3.0))
    made()(np.arange(3.0))
    logger.removeHandler(records)
    logger.setLevel(logging.NOTSET)
    assert records.texts == ["compiling doubled"]
