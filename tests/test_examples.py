"""The examples in docstrings run as printed."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def examples():
    """Module, line and text of every docstring with an example."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if ">>>" in source else ():
            text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if text and ">>>" in text:
                yield pytest.param(module, text, id=f"{module}.{getattr(node, 'name', '')}")


EXAMPLES = list(examples())


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize(("module", "text"), EXAMPLES)
def test_example_runs_as_printed(module, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if module.startswith("dyncollapse.integrations."):  # built on optional libraries
        pytest.importorskip(module, exc_type=ImportError)
    names = dict(vars(importlib.import_module(module)))
    example = doctest.DocTestParser().get_doctest(text, names, module, None, None)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)
