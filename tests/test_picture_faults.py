"""The check of pictures finds what it is there for."""

import numpy as np
import pytest
from helpers.pictures import faults
from matplotlib.figure import Figure

from dyncollapse.plotting import LEVEL, PALETTE, plot_eigenvalues, plot_spectrum, ramp


def two_panels():
    figure = Figure(figsize=(6, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for letter, ax in (("a", left), ("b", right)):
        ax.plot([1, 2], [1, 2], color=PALETTE[0], label="first")
        ax.plot([1, 2], [2, 1], "o", color=PALETTE[1], label="second")
        ax.set(title=f"({letter})", xlabel="x", ylabel="y")
        ax.legend()
    return figure


def test_a_fine_picture_has_no_faults():
    assert faults(two_panels()) == []


def crossing(figure):
    figure.axes[0].set_title("(a) as wide as its panel is", x=0.9)
    figure.axes[1].set_title("(b) as wide as its panel is")


def small(figure):
    figure.axes[0].text(1, 1, "small", fontsize=6.5)


def cut(figure):
    figure.suptitle("a title that is far too long for a picture of this width, and then some more of it " * 2)


def cut_label(figure):
    figure.set_layout_engine("none")
    figure.axes[0].set_position((0.0, 0.3, 0.4, 0.6))


def no_letter(figure):
    figure.axes[1].set_title("right")


def same_letter(figure):
    figure.axes[1].set_title("(a)")


def no_name(figure):
    figure.axes[0].plot([1, 2], [1, 1], ":", color=LEVEL)
    figure.axes[0].plot([1, 2], [1, 1.5], "^", color=PALETTE[2])


def no_legend(figure):
    for ax in figure.axes:
        ax.get_legend().remove()


def strange_line(figure):
    figure.axes[0].plot([1, 2], [1, 1], color="#123456", label="odd")
    figure.axes[0].legend()


def strange_bar(figure):
    figure.axes[0].bar([1], [1], color="tab:pink", label="odd")
    figure.axes[0].legend()


def strange_points(figure):
    figure.axes[0].scatter([1], [1], color="red", label="odd")
    figure.axes[0].legend()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (small, "6.5 points"),
        (cut, "cut"),
        (crossing, "cover each other"),
        (cut_label, "cut"),
        (no_letter, "titles"),
        (same_letter, "titles"),
        (no_name, "no legend"),
        (no_legend, "no legend"),
        (strange_line, "palette"),
        (strange_bar, "palette"),
        (strange_points, "palette"),
    ],
)
def test_a_spoilt_picture_is_found_out(spoil, said):
    figure = two_panels()
    spoil(figure)
    found = faults(figure)
    assert found
    assert all(said in line for line in found), found


def test_a_ramp_needs_the_names_of_its_ends():
    figure = Figure()
    ax = figure.add_subplot()
    for k, colour in enumerate(ramp(5)):
        ax.plot([1, 2], [k, k], color=colour, label="ranks" if k == 0 else None)
    ax.legend()
    assert len(faults(figure)) == 4
    ax.lines[0].set_label("rank 1 (dark) to 5 (light)")
    ax.legend()
    assert faults(figure) == []


def test_levels_beside_a_single_spectrum_are_named():
    figure = Figure()
    plot_eigenvalues(figure.add_subplot(), [2.0, 1.0, 0.0], 1e-9, 1e-4)
    assert faults(figure) == []


def test_a_band_has_the_colour_of_its_line():
    figure = Figure()
    ax = figure.add_subplot()
    plot_spectrum(ax, np.array([2.0, 1.0]), spread=np.array([0.1, 0.1]), label="sgd")
    assert faults(figure) == []
    ax.collections[0].set_facecolor("red")
    assert len(faults(figure)) == 1
