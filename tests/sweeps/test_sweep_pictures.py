"""Pictures of sweeps of many axes: titles that fit above their panels."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.pictures import faults

from dyncollapse import Sweep, Workers, expand_grid
from dyncollapse.sweeps.layout import Layout
from dyncollapse.sweeps.picture_options import Panel
from dyncollapse.sweeps.pictures import LETTERS, wrapped_title

TITLES = (
    "loss infonce, depth 1, activation linear, views one-sided",
    "loss spectral, depth 2, activation relu, views two-sided",
    "data-cov ../results/of/another/project/with-long-names/data.npy, batch-size 128",
    "",
)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Values and reports over the augmentation's strength."""
    grid = {"dim": 4, "runs": 1, "dynamics": ("population",), "aug_strength": [0.5, 1.5]}
    sweep = Sweep(tmp_path_factory.mktemp("sweep"), expand_grid(grid))
    assert sweep.run(Workers(lambda: ThreadPoolExecutor(1), count=1)) == {}
    return [(sweep.points[name].aug_strength, report) for name, report in sweep.reports()[0].items()]


@pytest.mark.parametrize("kind", ["sweep", "spectrum"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 12, 13])
def test_titles_of_many_settings_fit_above_their_panels(points, kind, count):
    titles = (TITLES * 4)[:count]
    figure = Layout("aug_strength", [Panel(title, points) for title in titles]).draw(kind)
    assert faults(figure) == []
    for ax, title in zip(figure.axes[:count], titles, strict=False):
        assert "".join(ax.get_title().split()).endswith("".join(title.split()))


@pytest.mark.parametrize("title", TITLES)
def test_lines_of_titles_are_short_and_break_between_settings(title):
    lines = wrapped_title(title).split("\n")
    assert max(map(len, lines)) <= LETTERS + 1  # with a comma
    if not title.startswith("data-cov"):
        assert all(line.endswith(",") for line in lines[:-1])
