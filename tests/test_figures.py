"""Every figure script, found by glob, runs in its quick form with the assertions that it makes in full."""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import forks

FIGURES = Path(__file__).parent.parent / "figures"
SCRIPTS = [*sorted(FIGURES.glob("fig[0-9]*.py")), *sorted(FIGURES.glob("beyond_*.py"))]
STARTED = "beyond_theorem2"  # by Python itself; the others, in forks, do without the seconds of imports
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_all_figures_of_the_documents_are_found():
    names = {script.stem for script in SCRIPTS}
    assert STARTED in names
    assert {"fig03_strong_augmentation", "fig05_alignment", "fig06_singular_values", "fig11_depth"} <= names
    page = (FIGURES.parent / "docs" / "how-to" / "vary-a-figure.md").read_text()
    assert all(f"`{name}.py`" in page for name in names)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.slow
def test_figure_draws_what_it_claims(script, tmp_path):
    command = ["-W", "error", str(script), "--quick", "--out", str(tmp_path)]
    if script.stem == STARTED:
        python = [sys.executable, *command]
        result = subprocess.run(python, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    else:
        result = forks.run(command)
    assert result.returncode == 0, result.stderr
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{script.stem}.{end}" for end in ("png", "pdf", "csv", "txt")}
    assert (tmp_path / f"{script.stem}.png").read_bytes().startswith(b"\x89PNG")
    pdf = (tmp_path / f"{script.stem}.pdf").read_bytes()
    assert b"/Type3" not in pdf  # text stays text (fonttype 42)
    with (tmp_path / f"{script.stem}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 5
    caption = (tmp_path / f"{script.stem}.txt").read_text()
    assert "Asserted:" in caption
    assert "seed" in caption


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_gallery_has_the_caption_that_the_script_writes(script):
    results = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    (result,) = [node for node in results if isinstance(node.func, ast.Name) and node.func.id == "Result"]
    parts = result.args[2].values  # of the f-string
    pattern = "".join(re.escape(part.value) if isinstance(part, ast.Constant) else "(?s:.*?)" for part in parts)
    shown = (FIGURES / "gallery" / f"{script.stem}.txt").read_text()
    assert re.fullmatch(pattern, shown.strip())


# As `python -O` compiles the scripts.
WITHOUT_ASSERTIONS = """
import sys
from pathlib import Path

source = Path(sys.argv[1]).read_text() + "\\nassert False\\nclaim(1 > 2, 'one exceeds two')"
exec(compile(source, sys.argv[1], "exec", optimize=1), {"__name__": "__main__", "__file__": sys.argv[1]})
"""


def test_a_claim_that_does_not_hold_fails_the_figure_also_without_assertions():
    result = forks.run(["-c", WITHOUT_ASSERTIONS, FIGURES / "figure.py"])
    assert result.returncode == 1
    assert result.stderr == "the figure's claim does not hold: one exceeds two\n"
