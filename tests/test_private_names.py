"""Tests use only what the package names in public: a private name may change with every commit.

A module whose name begins with an underscore is one like others here: its wing imports it, and so does its test.
"""

import ast
import re
from pathlib import Path

import pytest

import dyncollapse

TESTS = Path(__file__).parent
PACKAGE = Path(dyncollapse.__file__).parent
MODULES = {path.stem for path in PACKAGE.rglob("*.py")}
NAMED_TUPLE = {"_asdict", "_fields", "_replace"}  # are public
NOTEBOOKS = {"_repr_html_"}  # the name by which IPython asks for a page
PRIVATE = re.compile(r"_(?!_)\w+")
SETTERS = {"setattr", "delattr", "getattr", "hasattr", "object"}  # of monkeypatch, Python and unittest.mock


def trees(folder, known=None):
    """Path and syntax tree of each module, or of those that hold a word of `known`: to parse all takes seconds."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        if known is None or known & set(PRIVATE.findall(text)):
            yield path, ast.parse(text)


def defined(tree):
    """The private names that a module gives to functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def used(tree):
    """The private names that a module imports from the package, reads from objects, or gives to a setter as text."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "dyncollapse":
                yield from (alias.name for alias in node.names)
            case ast.Attribute(value=ast.Name(id="self")):  # of a class of the tests
                continue
            case ast.Attribute(attr=name):
                yield name
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in SETTERS:
                texts = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                yield from (text.rpartition(".")[2] for text in texts if isinstance(text, str))


def private(names):
    return {name for name in names if PRIVATE.fullmatch(name)} - MODULES - NAMED_TUPLE - NOTEBOOKS


@pytest.mark.parametrize(
    "code",
    [
        "from dyncollapse.sweeps.packing import _merged",
        "packing._merged()",
        "patch.setattr(packing, '_merged', None)",
        "patch.setattr('dyncollapse.sweeps.packing._merged', None)",
    ],
)
def test_private_names_are_found(code):
    assert private(used(ast.parse(code))) == {"_merged"}


def test_no_test_uses_a_private_name():
    of_package = {name for _, tree in trees(PACKAGE) for name in private(defined(tree))}
    assert len(of_package) > 100
    found = {
        f"{path.relative_to(TESTS)}: {name}"
        for path, tree in trees(TESTS, of_package)
        for name in private(used(tree)) & of_package
    }
    assert not found, "give what a test needs a public name, or test what it does"
