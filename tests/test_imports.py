"""Imports run downward only: the floors of the house, read from the source."""

import ast
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

import dyncollapse

PACKAGE = Path(dyncollapse.__file__).parent
FLOORS = [
    {"finite", "untrusted", "memory", "conversion", "precision", "choices"},
    {"files", "pickles", "archives"},
    {"torchnames"},
    {"torchfiles"},
    {"formats", "mapped"},
    {
        "settings",
        "schemas",
        "gaussian",
        "networks",
        "losses",
        "spectra",
        "alignment",
        "velocities",
        "trajectory",
        "dispatch",
        "threads",
        "interrupts",
        "measures",
        "moments",
        "readers",
        "reservoir",
        "planted",
        "shared_signal",
    },
    {
        "covariance",
        "equilibria",
        "riccati",
        "objective",
        "population",
        "view_moments",
        "split_moments",
        "evidence",
        "tolerances",
        "folders",
        "canvas",
        "leash",
    },
    {"ensemble", "flow", "solver", "causes"},
    {"training"},
    {"comparison", "diagnosis", "spectrum_verdict", "embeddings", "intervals", "cautions"},
    {"configuration", "footprint", "simulation", "grid", "packing", "plotting", "claims", "monitor"},
    {"report", "terminal", "webpage", "points", "tables", "estimate", "progress"},
    {"executors", "sweep", "terminal_sweep"},
    {"cli_shared"},
    {"bridge", "cli_sweep"},
    {"cli"},
    {"__main__", "__init__"},
]
# A package stands on one floor and has floors of its own.
PACKAGES = {
    "claims": [
        {"claim", "sampling"},
        {"paper"},
        {"paper_deep", "beyond", "beyond_deep", "bilinear", "escape", "finite", "losses", "measures", "sgd", "views"},
        {"__init__"},
    ],
    "bridge": [
        {"recipe", "views", "journal", "processes", "cli_common", "tensors", "pixels", "folders"},
        {"images", "projectors", "experiments", "optimisation", "watch"},
        {"encoders", "loading", "pictures", "restoring"},
        {"naming", "checkpoints"},
        {"rows", "matching"},
        {"heads"},
        {"tables", "trainer", "foreign"},
        {"loaded", "fitting"},
        {"pretraining", "embedding"},
        {"probe", "both"},
        {"check", "terminal"},
        {"full"},
        {"cli_full"},
        {"cli_pretrain", "cli_encoder", "cli_check"},
        {"cli"},
        {"__main__", "__init__"},
    ],
    "bridge.full": [
        {"scale", "timing", "generated", "pictures", "alone"},
        {"findings"},
        {"throughput", "covariances", "ensembles", "resumed"},
        {"embedded", "cifar"},
        {"parts"},
        {"report"},
        {"__init__"},
    ],
}
# The only imports within a floor.
NEIGHBOURS = {
    "threads": {"settings"},
    "trajectory": {"networks", "alignment"},
    "objective": {"covariance"},
    "population": {"objective"},
    "riccati": {"equilibria"},
    "view_moments": {"covariance"},
    "split_moments": {"view_moments"},
    "evidence": {"covariance"},
    "flow": {"solver"},
    "footprint": {"configuration"},
    "simulation": {"configuration", "footprint"},
    "grid": {"configuration"},
    "packing": {"configuration", "simulation"},
    "points": {"report"},
    "estimate": {"report"},
    "sweep": {"executors"},
    "terminal_sweep": {"sweep"},
    "cautions": {"diagnosis"},
    "spectrum_verdict": {"diagnosis"},
    "embeddings": {"diagnosis", "spectrum_verdict", "intervals", "cautions"},
}
# What figures may use.
PUBLIC = {"dyncollapse", "dyncollapse.bridge", "dyncollapse.plotting", "dyncollapse.files"}
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def floors(levels, package="", stairs=()):
    """Each module's floor, then its floor inside its package, and so on."""
    for floor, names in enumerate(levels):
        for name in names:
            module = package + name
            if module in PACKAGES:
                yield from floors(PACKAGES[module], f"{module}.", (*stairs, floor))
            else:
                yield module, (*stairs, floor)


def origin(name):
    """The module that a dotted name below dyncollapse is, or is defined in."""
    parent = name.rpartition(".")[0]
    candidates = (name, f"{name}.__init__", parent, f"{parent}.__init__")
    return next((module for module in candidates if module in FILES), "__init__")


def imported(module):
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {origin(name.partition(".")[2]) for name in names if name.split(".")[0] == "dyncollapse"}


def may_import(module, other):
    pairs = zip(module.split("."), other.split("."), strict=False)
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))  # of the package that both are in
    return FLOOR[other][depth] < FLOOR[module][depth] or other in NEIGHBOURS.get(module, set())


FLOOR = dict(floors(FLOORS))


def test_every_module_has_a_floor():
    assert set(FILES) == set(FLOOR)


@pytest.mark.parametrize("module", FILES)
def test_module_imports_from_below_only(module):
    assert {other for other in imported(module) if not may_import(module, other)} == set()


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


@pytest.mark.parametrize("code", ["import dyncollapse", "import dyncollapse.cli"])
def test_import_loads_nothing_heavy_before_it_is_used(code):
    heavy = ("torch", "scipy", "matplotlib", "rich")
    code = f"{code}; import sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_computing_loads_nothing_that_draws():
    code = "import sys, dyncollapse; dyncollapse.diagnose; dyncollapse.train; "
    code += "print([name for name in ('matplotlib', 'click', 'rich') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
