"""What numba compiles gives the same bits from the disk as in the process that compiled it."""

import ast
import importlib
import logging
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
