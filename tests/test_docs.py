"""The Python of the documents runs as printed, and their links and table lead somewhere."""

import csv
import math
import re
import shlex
import sys
import types
from pathlib import Path

import click
import pytest
import torch
from helpers import forks

from dyncollapse.commands.bridge import bridge
from dyncollapse.diagnostics.spectra import covariance_spectrum

ROOT = Path(__file__).parent.parent
DIAGNOSTICS = (ROOT / "docs" / "diagnostics.md").read_text()
BRIDGE = (ROOT / "docs" / "bridge.md").read_text()
# Commands that need data or a GPU are shown in blocks of sh; lines that end in a backslash go on.
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", BRIDGE + (ROOT / "README.md").read_text(), re.DOTALL)).replace(
    "\\\n", " "
)
BLOCKS = re.findall(r"```python\n(.*?)```", DIAGNOSTICS, re.DOTALL)


@pytest.fixture
def lightning(monkeypatch):
    """Stand in for Lightning, which is no dependency: a base class for callbacks."""
    package, module = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")
    package.pytorch, module.Callback = module, type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)


class Recorder:
    """A trainer and a module that note what they are told."""

    world_size = 1

    def __init__(self):
        self.logged, self.printed = {}, []

    def log(self, name, value, **_settings):
        self.logged[name] = value

    def print(self, text):
        self.printed.append(text)


@pytest.mark.usefixtures("lightning")
@pytest.mark.slow
def test_python_of_the_diagnostics_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in BLOCKS:
        exec(compile(block, "docs/diagnostics.md", "exec"), scope)
    assert scope["report"].verdict.mechanism == "both"
    assert scope["wrong"].verdict.mechanism == "implicit-regularization"
    assert scope["aligned"].sines.max() <= 1

    recorder, callback = Recorder(), scope["CollapseMonitor"]()
    callback.on_validation_epoch_start(recorder, recorder)
    rank_two = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for batch in range(3):
        z = torch.randn(64, 2, generator=torch.Generator().manual_seed(batch), dtype=torch.float64) @ rank_two
        callback.on_validation_batch_end(recorder, recorder, {"z": z, "z_pos": z + 0.1}, None, batch)
    callback.on_validation_epoch_end(recorder, recorder)
    assert recorder.logged == {"collapsed": 3.0}
    assert len(recorder.printed) == 1


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", BRIDGE, re.DOTALL))
@pytest.mark.slow
def test_python_of_the_bridge_runs(code):
    result = forks.run(["-W", "error", "-c", code])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if re.search(r"dyncollapse[ .]bridge ", line)])
def test_commands_that_need_data_have_the_options_that_are_shown(line):
    words = shlex.split(re.split(r"dyncollapse[ .]bridge ", line)[1], comments=True)
    command = bridge.commands[words[0]]
    arguments = [word for word in words[1:] if word != "$resume"]
    context = click.Context(command)
    _, left, _ = command.make_parser(context).parse_args(arguments)
    assert not left or words[0] == "table"


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_relative_links_lead_somewhere(document):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / link).exists(), link


@pytest.mark.slow
def test_table_of_the_diagnostics_is_the_figures(tmp_path):
    script = ROOT / "figures" / "beyond_diagnostics.py"
    result = forks.run([script, "--out", tmp_path])
    assert result.returncode == 0, result.stderr
    with (tmp_path / "beyond_diagnostics.csv").open() as file:
        drawn = {row["case"]: row for row in csv.DictReader(file)}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in DIAGNOSTICS.splitlines() if line[:1] == "|"]
    shown = {cells[0]: cells[1:] for cells in lines if cells[0] in drawn}
    assert shown.keys() == drawn.keys()
    for name, (dim, planted, *numbers) in shown.items():
        row = drawn[name]
        assert (dim, planted.split()[0]) == (row["dim"], row["planted"])
        for key, cell in zip(("std", "rankme", "participation", "share"), numbers, strict=True):
            # Rounding differs by platform: a count may be one off.
            assert float(cell.strip("*")) == pytest.approx(float(row[key]), abs=0.006 if key == "std" else 1.1)
            assert cell.startswith("**") is (row[f"{key}_right"] == "False")
    keys = ("std", "rankme", "participation", "share")
    wrong = [sum(row[f"{key}_right"] == "False" for row in drawn.values()) for key in keys]
    assert next(cells[3:] for cells in lines if cells[0] == f"wrong, of {len(drawn)}") == [str(n) for n in wrong]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"normalised embeddings in {wrong[0]} of {len(drawn)}, RankMe alone in {wrong[1]}" in readme


def test_square_samples_show_a_cliff_that_is_none():
    shown = []
    for seed in range(20):
        z = torch.randn(257, 256, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        logs = covariance_spectrum(z).log()
        mean_above = logs.cumsum(0)[:-1] / torch.arange(1, 256)
        cliff = (logs[1:] < math.log(1e-4) + mean_above).nonzero()
        shown.append(255 - int(cliff[0]) if len(cliff) else 0)
    assert max(shown) == 2
    count = sum(number > 0 for number in shown)
    assert f"of 20 draws at $d = 256$, {count} showed one or two at $N = 257$" in DIAGNOSTICS
