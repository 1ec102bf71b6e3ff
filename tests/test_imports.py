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
    # What they share, figure.py, has the command line of the package's own commands.
    scripts = [path for path in sorted((PACKAGE.parent / "figures").glob("*.py")) if path.name != "figure.py"]
    assert scripts
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dyncollapse"):
                assert node.module in PUBLIC, script.name


def test_all_names_what_is_there():
    assert all(hasattr(dyncollapse, name) for name in dyncollapse.__all__)
    assert len(set(dyncollapse.__all__)) == len(dyncollapse.__all__)


def loaded(code, *arguments):
    """The top-level packages that a fresh interpreter has imported after `code`, whatever that printed and raised."""
    tell = "import atexit, sys\natexit.register(lambda: print('\\n', *{name.split('.')[0] for name in sys.modules}))\n"
    command = [sys.executable, "-c", tell + code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(result.stdout.splitlines()[-1].split()), result


HEAVY = {"torch", "scipy", "matplotlib", "rich", "pandas", "jinja2", "timm", "torchvision", "sklearn", "datasets"}


def test_import_loads_nothing_heavy_before_it_is_used():
    assert not HEAVY & loaded("import dyncollapse, dyncollapse.bridge, dyncollapse.commands.main")[0]
    assert not {"pydantic", "click"} & loaded("from dyncollapse import SettingError")[0]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ((), "Commands:\n  bridge "),
        (("--help",), "Commands:\n  bridge "),
        (("--version",), "version"),
        (("bridge",), "Commands:\n  check "),
        (("bridge", "--help"), "Commands:\n  check "),
        (("simulat",), "No such command 'simulat'"),
        (("bridge", "train"), "No such command 'train'"),
        (("--bogus",), "No such option"),
    ],
)
def test_lists_of_commands_and_their_misuse_load_nothing_heavy(words, shown):
    packages, result = loaded("from dyncollapse.commands.main import main; main(prog_name='dyncollapse')", *words)
    assert "click" in packages
    assert not HEAVY & packages
    assert shown in result.stdout + result.stderr


def test_commands_load_nothing_heavy_missing_or_broken_before_they_are_called():
    code = "from dyncollapse.commands import bridge, main\n"
    code += "print(*main.main.commands.values(), *bridge.bridge.commands.values())"
    packages, _ = loaded(code)
    assert "click" in packages
    # Options are listed and refused where an extra is not installed, or the user's settings of Matplotlib are broken.
    assert not (HEAVY | {"numpy", "pyarrow", "xarray", "dask", "submitit"}) & packages


def test_torchrun_starts_the_bridge():
    command = [sys.executable, "-m", "dyncollapse.bridge", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage: dyncollapse bridge [OPTIONS] COMMAND [ARGS]...\n")


def test_a_refusal_looks_for_no_compiler():
    code = "import atexit, sys; atexit.register(lambda: print('torch.utils.cpp_extension' in sys.modules)); "
    code += "from dyncollapse.commands.main import main; main(['bridge', 'check', '--seeds', '0'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "False\n")
    assert len(result.stderr.splitlines()) == 1


def test_computing_loads_nothing_that_draws():
    packages, _ = loaded("import dyncollapse; dyncollapse.diagnose; dyncollapse.train")
    assert "torch" in packages
    assert not {"click", "matplotlib", "rich"} & packages
