"""The README's commands and Python run as printed, and its tables tell the truth."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from helpers import forks

from dyncollapse.bridge.evaluation.paper_tables import ROWS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = [line[2:] for line in CONSOLE.splitlines() if line.startswith("$ ")]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Minutes long: its options are checked, and tests/commands/test_bridge.py runs a small form of it.
LONG = (".venv/bin/dyncollapse bridge check --out runs/check",)
EMBEDDINGS = next(code for code in PYTHON if "z.npy" in code)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def run(python: list[str], cwd: Path) -> str:
    """What Python prints with these words, in a fork: other tests start it in earnest."""
    result = forks.run(python, cwd=cwd, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    return result.stdout


def in_environment(command: str) -> list[str]:
    """Split a README command; its `dyncollapse` is the one of this interpreter."""
    words = shlex.split(command)
    assert words[0] in {"dyncollapse", ".venv/bin/dyncollapse"}
    return ["-m", "dyncollapse", *words[1:]]


def test_readme_shows_commands_and_python():
    assert any("simulate" in command for command in COMMANDS)
    assert PYTHON


@pytest.mark.parametrize("command", [c for c in COMMANDS if "dyncollapse" in c and c not in LONG])
@pytest.mark.slow
def test_command_runs_and_prints_what_the_readme_shows(command, tmp_path):
    if "z.npy" in command:
        run(["-c", EMBEDDINGS], tmp_path)
    printed = run(in_environment(command), tmp_path)
    shown = CONSOLE.split(f"$ {command}\n")[1].split("$ ")[0].strip()
    if not shown:
        return
    assert [len(line.split()) for line in printed.splitlines()] == [len(line.split()) for line in shown.splitlines()]
    if "diagnose" in command:
        assert printed.splitlines()[-1] == shown.splitlines()[-1]
        return
    if "simulate" not in command:
        assert printed.split("\n", 2)[2].strip() == shown.split("\n", 2)[2]  # below the measured numbers
        return
    verdict = next(line for line in shown.splitlines() if "collapsed:" in line or line.startswith("No dimension"))
    assert verdict in printed.splitlines()
    # Different processors round differently, and SGD on 8 seeds carries that on: the numbers agree to 10 %.
    columns = [[line.split()[4] for line in text.splitlines()[1:9]] for text in (printed, shown)]
    assert [float(value) for value in columns[0]] == pytest.approx([float(v) for v in columns[1]], rel=0.1)


@pytest.mark.parametrize("command", LONG)
def test_long_command_is_known_and_prints_the_rows_that_the_readme_shows(command):
    run([*in_environment(command), "--help"], ROOT)
    shown = CONSOLE.split(f"$ {command}\n")[1].split("$ ")[0]
    assert all(f"\n{row.name}" in shown for row in ROWS)


@pytest.mark.parametrize("code", PYTHON)
def test_python_example_runs(code, tmp_path):
    run(["-W", "error", "-c", code], tmp_path)


@pytest.mark.parametrize("target", sorted({c.split()[1] for c in COMMANDS if c.startswith("make ")}))
def test_make_target_exists(target):
    # A dry run only: this suite is itself one of the targets.
    command = ["make", "--dry-run", "--always-make", target]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_relative_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_ci_calls_the_test_command_of_the_readme_and_nothing_else():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert "make test" in COMMANDS
