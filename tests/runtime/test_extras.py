"""What is advised where an optional library is missing."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dyncollapse.runtime.extras import install


def test_advice_names_the_running_python_unless_python_starts_it(monkeypatch, tmp_path):
    own = tmp_path / "clone 1" / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(own))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert install("tables") == "'clone 1/.venv/bin/python' -m pip install 'dyncollapse[tables]'"
    monkeypatch.chdir(tmp_path / "clone 1")
    assert install("tables") == ".venv/bin/python -m pip install 'dyncollapse[tables]'"
    monkeypatch.chdir(own.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shlex.split(install("tables"))[0] == str(own)
    monkeypatch.setenv("PATH", str(own.parent))
    assert install("tables") == "pip install 'dyncollapse[tables]'"


def test_pip_takes_the_advice_where_dyncollapse_is_installed_from_a_clone():
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this Python has no pip")
    words = [sys.executable, "-m", "pip", *shlex.split(install("tables"))[-2:], "--dry-run", "--no-deps", "--no-index"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Requirement already satisfied: dyncollapse[tables]" in result.stdout, result.stderr
    assert str(Path(__file__).parents[2]) in result.stdout or "site-packages" in result.stdout
