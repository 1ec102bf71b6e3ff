"""Every public name has a docstring with its arguments, what it returns, and an example that runs."""

import dataclasses
import inspect
import re

import pytest

import dyncollapse
import dyncollapse.bridge

NAMES = [(module, name) for module in (dyncollapse, dyncollapse.bridge) for name in module.__all__]
FUNCTIONS = [(m, n) for m, n in NAMES if inspect.isroutine(getattr(m, n))]
CLASSES = [(m, n) for m, n in NAMES if inspect.isclass(getattr(m, n))]
UNSAID = {"Configuration": {"out"}}  # where results go, which the command line sets


def given(function):
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=lambda value: getattr(value, "__name__", value))
def test_function_says_what_it_takes_and_returns(module, name):
    function = getattr(module, name)
    text = inspect.getdoc(function)
    assert ("Args:" in text) == bool(given(function))
    returns = inspect.signature(function).return_annotation
    assert ("Returns:" in text or "Yields:" in text) == (returns not in {None, "None"})
    assert ">>> " in text


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=lambda value: getattr(value, "__name__", value))
def test_class_has_an_example_and_says_what_it_holds(module, name):
    kind = getattr(module, name)
    text = inspect.getdoc(kind)
    assert ">>> " in text
    if dataclasses.is_dataclass(kind):
        assert "Attributes:" in text
        said = re.findall(r"^ +(\w+)(?: \([^)]*\))?: ", text, flags=re.MULTILINE)
        public = {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
        assert public - set(said) == UNSAID.get(name, set())


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=lambda value: getattr(value, "__name__", value))
def test_public_methods_have_a_sentence(module, name):
    kind = getattr(module, name)
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    members = {key: value for key, value in vars(kind).items() if not key.startswith("_") and key not in fields}
    assert [key for key, value in members.items() if callable(value) and not inspect.getdoc(value)] == []
