"""A function fits one screen, and nobody has to count its arguments."""

import ast
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
LINES, POSITIONAL = 50, 6
# The arguments of these are those that pickles give to a function of torch's, in their order.
AS_PICKLED = {("formats/torch_names.py", "_tensor_of_bytes")}


def functions(path):
    """Every function of a file, with the lines of its body that are no docstring and its positional parameters."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            words = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args) if one.arg not in ("self", "cls")]
            yield node.name, node.end_lineno - node.lineno + 1 - words, len(names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short_and_take_few_arguments_by_place(path):
    place = path.relative_to(PACKAGE).as_posix()
    assert not [name for name, lines, _ in functions(path) if lines > LINES]
    assert not [name for name, _, count in functions(path) if count > POSITIONAL and (place, name) not in AS_PICKLED]
