"""The kept records of runs are whole, small and free of paths, and the page of results shows what they say."""

import json
import re
from pathlib import Path

import pytest
from keep_runs import PAGE, refreshed, rounded

from dyncollapse.bridge import compare, draw_check, find_runs
from dyncollapse.bridge.evaluation.paper_tables import as_markdown

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "data" / "cifar10"
RUNS = find_runs([KEPT])


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.folder.name)
def test_every_kept_run_is_finished_diagnosed_and_probed(run):
    assert run.finished
    assert run.top1() is not None
    assert run.diagnosis is not None
    assert run.recipe.data == "cifar10"
    text = "".join(path.read_text() for path in run.folder.iterdir())
    assert len(text) < 600_000
    assert not re.search(r'"/\w', text)


def test_page_of_results_shows_the_tables_of_these_runs():
    tables, page = as_markdown(compare(RUNS)), PAGE.read_text()
    assert tables in page
    assert refreshed(page.replace(tables, "| projector |\n\n| better |\n"), KEPT) == page


@pytest.mark.parametrize(("temperature", "said"), [(0.1, "1 reversed, 2 undecided"), (0.5, "2 hold, 1 undecided")])
def test_titles_of_pictures_claim_no_order_that_the_seeds_do_not_show(temperature, said):
    shared = {"temperature": temperature, "epochs": 5, "batch_size": 256, "images": None, "arch": "resnet10-half-512"}
    runs = [run for run in RUNS if all(getattr(run.recipe, name) == value for name, value in shared.items())]
    *_, top1, orders = draw_check(runs).get_suptitle().splitlines()
    assert top1.endswith("in the paper: nonlinear projector 66.5, linear projector 61.1, no projector 51.5")
    assert orders == f"of the paper's 3 orders of these: {said}"


def test_numbers_are_rounded_and_all_else_is_kept():
    values = {"a": [1 / 3, 2, "x", None, True], "b": {"c": 1e-9 / 7}}
    assert rounded(values) == {"a": [0.333333, 2, "x", None, True], "b": {"c": 1.42857e-10}}
    json.dumps(rounded(values), allow_nan=False)
