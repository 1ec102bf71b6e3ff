"""Imports run downward only: the floors of the house, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
FLOORS = [
    {"gaussian", "networks", "losses", "spectra", "alignment", "trajectory", "files"},
    {"covariance", "equilibria", "objective", "population"},
    {"training", "flow"},
    {"comparison", "diagnosis"},
    {"configuration", "simulation", "plotting"},
    {"cli"},
    {"__main__"},
]
# The only imports within a floor.
NEIGHBOURS = {
    "trajectory": {"networks", "alignment", "files"},
    "objective": {"covariance"},
    "population": {"objective"},
    "simulation": {"configuration"},
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(module: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dyncollapse":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dyncollapse.")}
    return names


def test_every_module_has_a_floor():
    assert set(MODULES) == set().union(*FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_from_below_only(module):
    floor = next(i for i, names in enumerate(FLOORS) if module in names)
    below = set().union(*FLOORS[:floor]) if floor else set()
    assert imported(module) <= below | NEIGHBOURS.get(module, set())


def test_figures_use_the_public_interface_only():
    scripts = sorted((PACKAGE.parent / "figures").glob("*.py"))
    assert scripts
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dyncollapse"):
                assert node.module in {"dyncollapse", "dyncollapse.plotting", "dyncollapse.files"}, script.name


def test_all_names_what_is_there():
    assert all(hasattr(dyncollapse, name) for name in dyncollapse.__all__)
    assert len(set(dyncollapse.__all__)) == len(dyncollapse.__all__)


def test_import_does_not_load_what_only_some_commands_need():
    code = "import sys, dyncollapse; print([m for m in ('matplotlib', 'click', 'rich') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
