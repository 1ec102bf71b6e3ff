"""The pictures of the page draw the numbers of the views."""

import base64
import re
import threading
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from dyncollapse.explore.controls import configuration_of
from dyncollapse.explore.curves import phases, view_of
from dyncollapse.explore.pictures import draw_paths, draw_phases, draw_spectrum, image
from dyncollapse.explore.running import record


@pytest.fixture(scope="module")
def view():
    c = configuration_of({"dim": 4, "aug_strength": 0.8, "steps": 300, "batch_size": 16, "runs": 2})
    view = view_of(c)
    return type(view)(view.simulation, {name: record(c, name) for name in ("population", "sgd")})


def axes():
    return Figure().add_subplot()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_paths_are_lines_of_the_views_numbers_with_escape_times_above(view):
    ax = axes()
    assert draw_paths(ax, view, 10.0) is ax
    lines = ax.lines
    for start, name in ((0, "closed form"), (4, "population")):
        path = view.paths[name]
        for k in range(4):
            assert np.array_equal(lines[start + k].get_ydata(), path.values[path.time > 0, k].numpy())
    marks = [line for line in lines if line.get_marker() == "v"]
    escapes = [mode["escape_time"] for mode in view.prediction["modes"]]
    shown = [time for time in escapes if time is not None and time >= float(view.times[1])]
    assert [float(line.get_xdata()[0]) for line in marks] == shown
    assert labels(ax) == ["closed form", "population flow", "SGD", "escape time"]
    assert [float(line.get_xdata()[0]) for line in lines if str(line.get_color()) == "0.6"] == [10.0]


def test_the_spectrum_is_ranked_and_has_the_level_of_collapse(view):
    ax, time = axes(), 30.0
    assert draw_spectrum(ax, view, time) is ax
    by_label = {line.get_label(): line for line in ax.lines}
    for label, name in (("closed form", "closed form"), ("population flow", "population"), ("SGD", "sgd")):
        values = view.at(time)[name][0].sort(descending=True).values
        assert np.array_equal(by_label[label].get_ydata(), values.numpy())
    assert float(by_label["collapsed below"].get_ydata()[0]) == pytest.approx(view.outcome.verdict.threshold)
    finite = [mode["rest_singular_value"] for mode in view.prediction["modes"] if mode["rest_singular_value"]]
    assert by_label["at rest"].get_ydata().tolist() == finite
    assert by_label["at rest"].get_xdata().tolist() == [3, 4]  # below the two that grow without bound


def test_the_phase_diagram_has_the_setting_as_a_point(view):
    found, ax = phases(view), axes()
    assert draw_phases(ax, found, 0.8, 10.0) is ax
    (point,) = [line for line in ax.lines if line.get_label() == "this setting"]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.8, 10.0)
    (edge,) = [line for line in ax.lines if line.get_label() == "dead beyond"]
    assert edge.get_xdata()[0] == view.prediction["threshold"] == 1.0
    assert labels(ax) == ["escape time", "dead beyond", "this setting"]


def test_an_image_holds_its_data_and_its_words(view):
    html = image(lambda ax: draw_paths(ax, view, 10.0), 'with "quotes" & more')
    found = re.fullmatch(r'<img class="picture" alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)">', html)
    assert found[1] == "with &quot;quotes&quot; &amp; more"
    assert ElementTree.fromstring(base64.b64decode(found[2])).tag.endswith("svg")


def test_pages_draw_at_the_same_time_without_mixing_styles(view):
    drawn = []

    def draw():
        drawn.append(image(lambda ax: draw_spectrum(ax, view, 30.0), ""))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = {len(one) // 1000 for one in drawn}
    assert len(drawn) == 4
    assert max(sizes) - min(sizes) <= 1
