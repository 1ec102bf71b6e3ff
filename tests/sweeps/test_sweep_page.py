"""What the page of a sweep shows, as a record, and the command that runs its points."""

import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.html import Page as Read

from dyncollapse import Sweep, Workers, expand_grid
from dyncollapse.commands.sweep_command import sweep_command
from dyncollapse.runtime.files import write_json
from dyncollapse.runtime.page.render import render
from dyncollapse.sweeps.layout import Layout
from dyncollapse.sweeps.page import LISTED, sweep_page
from dyncollapse.sweeps.page_pictures import panel_pictures
from dyncollapse.sweeps.result import SweepResult
from dyncollapse.sweeps.sweep import FAILURES

GRID = {"dim": 4, "runs": 1, "dynamics": ("population",), "aug_strength": [0.5, 1.5], "depth": [1, 2]}
EVIL = "<script>alert(1)</script>\x1b[2J"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    made = Sweep(tmp_path_factory.mktemp("sweep") / "a b", expand_grid(GRID))
    assert made.run(Workers(lambda: ThreadPoolExecutor(1), count=1)) == {}
    return made


def page_of(sweep, reports=None):
    return sweep_page(sweep.points, reports or sweep.reports()[0], sweep.failures(), folder=sweep.folder)


def test_it_counts_points_and_causes(sweep):
    page = page_of(sweep)
    assert page.verdict.startswith("Dimensions collapsed in ")
    assert " of 4 points: " in page.verdict
    assert page.facts == ["4 of 4 points are finished."]
    assert page.subject.endswith("a b: 4 points, 2 aug strength x 2 depth")
    (table,) = page.tables
    assert table.columns[:4] == ["point", "aug strength", "depth", "collapsed"]
    assert len(table.rows) == 4
    assert page.settings["dim"] == 4
    assert {"depth", "aug_strength", "out"} & set(page.settings) == set()


def test_the_result_in_python_has_the_same_page(sweep):
    text = SweepResult(sweep.points, sweep.reports()[0], {}, sweep.folder).to_html()
    assert Read(text).tags.count("svg") == 2
    assert page_of(sweep).verdict in Read(text).text


def test_nothing_collapsed_and_nothing_finished_are_said(sweep, tmp_path):
    healthy = {name: report for name, report in sweep.reports()[0].items() if not report["verdict"]["collapsed"]}
    assert healthy
    assert page_of(sweep, healthy).verdict == f"No dimension collapsed in any of {len(healthy)} points."
    empty = page_of(Sweep(tmp_path, expand_grid({"seed": [0, 1]})))
    assert (empty.verdict, empty.tables) == ("No point is finished.", [])
    assert Read(render(empty)).tags.count("h1") == 1


def test_failures_are_cautions_and_only_text(tmp_path):
    many = Sweep(tmp_path, expand_grid({"seed": list(range(LISTED + 3))}))
    write_json(tmp_path / FAILURES, dict.fromkeys(many.points, EVIL))
    page = page_of(many)
    assert len(page.cautions) == LISTED + 1
    assert page.cautions[-1] == "3 more points failed."
    text = render(page)
    assert "<script" not in text
    assert "\x1b" not in text


def test_a_panel_has_a_picture_with_the_scale_of_all(sweep):
    layout = Layout.of(sweep.points, sweep.axes, sweep.reports()[0])
    pictures = panel_pictures(layout, ("sweep", "spectrum"))
    assert len(pictures) == 4
    assert all("Collapsed dimensions by" in one.description for one in pictures)
    assert len({one.draw().axes[0].get_ylim() for one in pictures}) == 1


def test_a_single_setting_has_no_picture(tmp_path):
    one = Sweep(tmp_path, expand_grid({"dim": 4}))
    assert Layout.of(one.points, one.axes, {}) is None


def test_the_command_names_exactly_the_points(sweep):
    words = shlex.split(sweep_command(sweep))
    assert words[:2] == ["dyncollapse", "sweep"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert (options["--aug-strength"], options["--depth"]) == ("0.5,1.5", "1,2")
    assert options["--out"] == str(sweep.folder)


@pytest.mark.parametrize(
    "points",
    [
        [*expand_grid({"depth": [1, 2], "seed": [0, 1]})][:3],  # no whole grid
        [*expand_grid({"bias": [False, True]})],  # an axis that the command line gives one value
    ],
)
def test_points_of_no_single_command_have_none(tmp_path, points):
    assert sweep_command(Sweep(tmp_path, points)) == ""
