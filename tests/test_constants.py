"""Tests set only those constants of the package that `helpers.constants` gives a reason for."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from helpers.constants import SET

TESTS = Path(__file__).parent


@cache
def arguments(function):
    """Of every call of a function in the tests: the file, and the strings and names among its arguments."""
    return [
        (path.name, [a.value if isinstance(a, ast.Constant) else ast.unparse(a) for a in node.args[:3]])
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == function
    ]


@pytest.mark.parametrize("name", SET)
def test_constant_is_there_and_is_set(name):
    module, _, constant = name.rpartition(".")
    assert hasattr(import_module(f"dyncollapse.{module}"), constant)
    assert any(given[1] == name for _, given in arguments("set_constant"))


def test_no_other_constant_is_set():
    hub = {"HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE"}
    others = {
        "CACHE_DIR",
        "MAX_IMAGE_PIXELS",
        "CIFAR10",
        "MAKING",
        "MP_STATUS_CHECK_INTERVAL",
        "RULES",
        *hub,
    }  # not ours
    found = {
        (file, name)
        for file, given in arguments("setattr")
        for name in (str(given[0]).rpartition(".")[2], str(given[1]) if len(given) > 2 else "")
        if name.isupper() and len(name) > 2
    }
    assert {name for _, name in found} <= others, found
