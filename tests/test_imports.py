"""What is imported when: figures use the public interface, and nothing heavy is loaded before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
PUBLIC = {"dyncollapse", "dyncollapse.bridge", "dyncollapse.plotting", "dyncollapse.runtime.files"}


def test_figures_use_the_public_interface_only():
    scripts = sorted((PACKAGE.parent / "figures").glob("*.py"))
    assert scripts
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dyncollapse"):
                assert node.module in PUBLIC, script.name


def test_all_names_what_is_there():
    assert all(hasattr(dyncollapse, name) for name in dyncollapse.__all__)
    assert len(set(dyncollapse.__all__)) == len(dyncollapse.__all__)


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("import dyncollapse", ("pydantic", "click")),
        ("from dyncollapse import SettingError", ("pydantic", "click")),
        ("import dyncollapse.commands.main", ()),
    ],
)
def test_import_loads_nothing_heavy_before_it_is_used(code, more):
    heavy = ("torch", "scipy", "matplotlib", "rich", *more)
    code = f"{code}; import sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_computing_loads_nothing_that_draws():
    code = "import sys, dyncollapse; dyncollapse.diagnose; dyncollapse.train; "
    code += "print([name for name in ('matplotlib', 'click', 'rich') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
