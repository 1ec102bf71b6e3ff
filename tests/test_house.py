"""A function fits one screen, and nobody has to count its arguments."""

import ast
from functools import cache
from pathlib import Path

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
LINES, POSITIONAL = 50, 6
# Others call these, with arguments in an order of theirs: pickles call a function of torch's, CVODE a preconditioner,
# marimo the cells of a notebook.
CALLED_BY_OTHERS = {
    ("formats/torch_names.py", "_tensor_of_bytes"),
    ("dynamics/_cvode.py", "precondition"),
    ("explore/page.py", "_"),
}


def functions(path):
    """Every function of a file, with the lines of its body that are no docstring and its positional parameters."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            words = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args) if one.arg not in ("self", "cls")]
            yield node.name, node.end_lineno - node.lineno + 1 - words, len(names)


@cache
def by_file():
    """The functions of every file: not before a test asks, as all processes of a run of tests import this module."""
    return {path.relative_to(PACKAGE).as_posix(): list(functions(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def test_functions_fit_a_screen():
    long = {(path, name) for path, found in by_file().items() for name, lines, _ in found if lines > LINES}
    assert not long


def test_functions_take_few_arguments_by_place():
    many = {(path, name) for path, found in by_file().items() for name, _, count in found if count > POSITIONAL}
    assert many == CALLED_BY_OTHERS
