"""Links of the documents lead somewhere, and their tables are those that figures and code give."""

import csv
import math
import re

import pytest
import torch
from helpers import forks
from helpers.pages import ROOT, pages

from dyncollapse.diagnostics.spectra import covariance_spectrum

DIAGNOSTICS = (ROOT / "docs" / "explanation" / "diagnostics.md").read_text()
LIMITS = (ROOT / "docs" / "explanation" / "when-not-to-trust.md").read_text()


@pytest.mark.parametrize(("name", "text"), pages().items(), ids=pages())
def test_relative_links_lead_somewhere(name, text):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / name).parent / link).exists(), link


@pytest.mark.slow
def test_table_of_the_diagnostics_is_the_figures(tmp_path):
    script = ROOT / "figures" / "beyond_diagnostics.py"
    result = forks.run([script, "--format", "svg", "--out", tmp_path])
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
    assert f"of 20 draws at $d = 256$, {count} showed one or two at $N = 257$" in LIMITS
