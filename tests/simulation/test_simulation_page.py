"""What the page of a simulation shows, as a record."""

import pytest
from helpers.html import Page as Read

from dyncollapse import simulate
from dyncollapse.simulation.page import MOST_LINES, simulation_page
from dyncollapse.simulation.tables import remarks

SMALL = {"dim": 4, "runs": 2, "steps": 30, "batch_size": 16, "pool": 64}


@pytest.fixture(scope="module")
def result():
    return simulate(**SMALL, depth=2, dynamics=("sgd", "population"))


@pytest.fixture(scope="module")
def page(result):
    return simulation_page(result.outcome, result.to_dict())


def test_it_says_what_the_result_says(result, page):
    assert page.verdict == result.verdict.sentence
    assert (
        page.subject == "2 linear layers on 4 dimensions, infonce, one-sided views, 2 runs of SGD and population flow"
    )
    table, closed = page.tables
    assert [row[0] for row in table.rows] == ["1", "2", "3", "4"]
    assert table.columns[-1] == "collapsed?"
    assert (closed.folded, len(closed.rows)) == (True, 4)
    assert any(text.startswith("Population limit") for text in page.facts)
    assert page.settings["seed"] == 0
    assert "torch" in page.settings["versions"]


def test_pictures_are_spectrum_paths_and_alignment_of_two_layers(page):
    titles = [picture.title for picture in page.pictures]
    assert titles == ["Spectrum at the end", "Singular values over flow time", "Alignment of layers 1 and 2"]
    assert len(page.pictures[0].draw().axes[0].lines) >= 2
    one = simulate(**SMALL, dynamics=("population",))
    assert len(simulation_page(one.outcome, one.to_dict()).pictures) == 2


def test_the_command_gives_the_configuration(page):
    words = page.reproduce.split()
    assert words[:2] == ["dyncollapse", "simulate"]
    assert {"--depth", "--dim", "--steps"} <= set(words)
    assert "--out" not in words


def test_remedies_of_the_report_are_passed_on(result):
    advice = {"try": "Train longer.", "effect": "", "source": "", "kind": "remedy"}
    shown = simulation_page(result.outcome, result.to_dict() | {"remedies": [advice]})
    assert list(shown.remedies) == [advice]


def test_many_paths_are_dots():
    wide = simulate(dim=MOST_LINES + 1, runs=1, steps=2, batch_size=16, pool=64, lr=1e-3, dynamics=("sgd",))
    page = simulation_page(wide.outcome, wide.to_dict())
    assert all(line.get_rasterized() for line in page.pictures[1].draw().axes[0].lines)


def test_the_same_result_is_the_same_page(result):
    text = result.to_html()
    assert text == result.to_html()
    assert Read(text).tags.count("svg") == 3


def test_what_single_runs_lost_is_said_where_the_means_over_runs_hide_it():
    given = {"dim": 8, "depth": 2, "weight_decay": 0.04, "loss": "spectral", "aug_strength": 0.45, "init_scale": 0.3}
    result = simulate(**given, runs=2, dynamics=("sgd",))
    values = result.trajectories["sgd"].singular_values[-1]
    assert (values > 0.01).sum(-1).tolist() == [7, 7]
    assert result.verdict.count == 0
    said = [text for text in remarks(result.outcome, result.to_dict()) if "means over runs" in text]
    assert said == ["The verdict is on means over runs: 2 of 2 runs lost up to 1 of 8 dimensions, not the same in all."]
    healthy = simulate(dim=4, aug_dim=0, runs=2, dynamics=("sgd",), init_scale=0.5, steps=500)
    assert not [text for text in remarks(healthy.outcome, healthy.to_dict()) if "means over runs" in text]
