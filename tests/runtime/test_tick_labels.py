"""Powers of 10 at the ticks of logarithmic axes, as plain text."""

import io

import pytest
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dyncollapse.runtime.canvas import picture
from dyncollapse.runtime.tick_labels import write_powers_plainly


def labels(axis, which="major"):
    axis.figure.savefig(io.BytesIO(), format="svg")
    return [label.get_text() for label in axis.get_ticklabels(which=which)]


@pytest.mark.parametrize(
    ("scale", "settings", "limits", "which", "expected"),
    [
        ("log", {}, (1e-2, 1e1), "major", ["10⁻²", "10⁻¹", "10⁰", "10¹"]),
        ("log", {}, (2e-12, 0.9e-10), "major", ["10⁻¹¹"]),
        ("log", {}, (0.19, 0.31), "minor", ["2×10⁻¹", "3×10⁻¹"]),
        ("log", {"base": 2}, (1, 8), "major", ["2⁰", "2¹", "2²", "2³"]),
        ("symlog", {}, (-100, 100), "major", ["−10²", "−10¹", "−10⁰", "0", "10⁰", "10¹", "10²"]),
    ],
)
def test_powers_are_superscripts(scale, settings, limits, which, expected):
    axes = Figure().add_subplot()
    axes.set_yscale(scale, **settings)
    axes.set_ylim(*limits)
    write_powers_plainly(axes.figure)
    found = [label for label in labels(axes.yaxis, which) if label]
    assert set(expected) <= set(found)
    assert not any("$" in label for label in found)


def test_labels_of_other_axes_stay():
    figure = Figure()
    axes = figure.add_subplot(yscale="log", ylim=(1, 10))
    own = FuncFormatter(lambda x, _: f"${x:g}^2$")
    axes.yaxis.set_major_formatter(own)
    before = labels(axes.xaxis)
    write_powers_plainly(figure)
    assert axes.yaxis.get_major_formatter() is own
    assert labels(axes.xaxis) == before


def test_pictures_have_them():
    def draw():
        figure = Figure(layout="constrained")
        figure.add_subplot(yscale="log", ylim=(1e-3, 1))
        return figure

    assert ">10⁻³<" in picture(draw, "svg", {"svg.fonttype": "none"}).decode()
