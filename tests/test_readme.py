"""Make targets in README and CONTRIBUTING are there; tests/test_pages.py runs their blocks."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = "\n".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))


def test_readme_shows_its_two_commands_and_one_command_for_each_kind_of_user():
    shown = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("$ ")]
    assert shown[:2] == ["$ make figures", "$ make test"]
    assert all(any(word in line for line in shown) for word in ("simulate", "diagnose", "bridge pretrain"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)\b(?=`)", TEXT)) | {"figures", "test"}))
def test_make_target_exists(target):
    # A dry run only: this suite is itself one of the targets.
    result = subprocess.run(["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_ci_calls_the_test_command_of_the_readme_and_nothing_else():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert "$ make test" in TEXT
