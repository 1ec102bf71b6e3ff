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
STARTED = "fig11_depth"  # by Python itself; in forks the scripts do without the seconds of imports
LONG = 30  # letters of a text, besides its values
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_all_figures_of_the_documents_are_found():
    names = {script.stem for script in SCRIPTS}
    assert STARTED in names
    assert {"fig03_strong_augmentation", "fig05_alignment", "fig06_singular_values", "fig11_depth"} <= names
    page = (FIGURES.parent / "docs" / "how-to" / "vary-a-figure.md").read_text()
    assert all(f"`{name}.py`" in page for name in names)


# Runs a script with its command line, and says on stderr what is wrong with the picture that it has drawn.
DRAW = """
import sys
from importlib import import_module

sys.path[:0] = sys.argv[1:3]
import figure
from helpers.pictures import faults

drawn, save = [], figure.save
figure.save = lambda result, *names: drawn.append(result) or save(result, *names)
name, sys.argv = sys.argv[3], [f"figures/{sys.argv[3]}.py", *sys.argv[4:]]
try:
    import_module(name).draw.main()
finally:
    print(*(line for result in drawn for line in faults(result.figure, drawn=True)), sep="\\n", file=sys.stderr)
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.slow
def test_figure_draws_what_it_claims_and_can_be_read(script, tmp_path):
    words = [str(FIGURES.parent / "tests"), str(FIGURES), script.stem, "--quick", "--out", str(tmp_path)]
    result = forks.run(["-W", "error", "-c", DRAW, *words])
    assert (result.returncode, result.stderr.strip()) == (0, "")
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


@pytest.mark.slow
def test_a_script_runs_by_itself_with_parameters(tmp_path):
    words = ["--quick", "--depth", "1,2", "--steps", "50", "--runs", "3", "--format", "svg", "--out", str(tmp_path)]
    python = [sys.executable, "-W", "error", str(FIGURES / f"{STARTED}.py"), *words]
    result = subprocess.run(python, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{STARTED}.{end}" for end in ("svg", "csv", "txt")}
    caption = (tmp_path / f"{STARTED}.txt").read_text()
    assert "Varied: --depth 1,2 --steps 50 --runs 3." in caption
    missed = [line for line in caption.splitlines() if line.startswith("- ")]
    said = [line for line in result.stderr.splitlines() if line.startswith("does not hold with these settings: ")]
    assert [line.removeprefix("- ") for line in missed] == [line.split(": ", 1)[1] for line in said]
    assert missed or "It holds here, too." in caption


def patterns(script):
    """Regular expressions of the long texts of a script, with anything where it puts values."""
    for node in ast.walk(ast.parse(script.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        fixed = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if sum(map(len, fixed)) > LONG:
            whole = "".join(re.escape(part.value) if isinstance(part, ast.Constant) else "(?s:.*?)" for part in parts)
            yield whole.replace(r"\[\[", "").replace(r"\]\]", "")  # around what a caption concludes


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_gallery_has_the_caption_that_the_script_writes(script):
    shown = (FIGURES / "gallery" / f"{script.stem}.txt").read_text().strip()
    caption, asserted = shown.split("\nAsserted: ")
    known = list(patterns(script))
    assert any(re.fullmatch(pattern, caption) for pattern in known)
    assert any(re.fullmatch(pattern, asserted) for pattern in known)


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
