import numpy as np
import pytest
from matplotlib.figure import Figure

from dyncollapse.plotting import plot_alignment, plot_order, plot_paths, plot_spectrum


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_spectrum_is_drawn_over_ranks_on_a_log_axis(ax):
    values = np.array([1.0, 0.1, 1e-3])
    plot_spectrum(ax, values, spread=0.5 * values, label="sgd")
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == values.tolist()
    assert ax.get_yscale() == "log"
    assert len(ax.collections) == 1


def test_a_spread_beyond_the_value_stays_on_the_log_axis(ax):
    plot_spectrum(ax, np.array([1.0, 0.1]), spread=np.array([2.0, 2.0]))
    assert ax.dataLim.y0 > 0


def test_paths_draw_every_column_and_label_one(ax):
    plot_paths(ax, [0.0, 1.0], np.ones((2, 3)), ["C0"] * 3, label="flow")
    assert len(ax.lines) == 3
    assert len(ax.get_legend_handles_labels()[1]) == 1


def test_alignment_shows_magnitudes_from_0_to_1(ax):
    image = plot_alignment(ax, np.array([[-1.0, 0.2], [0.1, 0.9]]))
    assert np.array_equal(image.get_array(), [[1.0, 0.2], [0.1, 0.9]])
    assert image.get_clim() == (0, 1)


def test_order_line_has_the_given_slope(ax):
    steps = np.array([0.1, 0.01])
    plot_order(ax, steps, 3 * steps, 1.0)
    fitted = ax.lines[1].get_ydata()
    assert np.allclose(fitted, 3 * steps)
