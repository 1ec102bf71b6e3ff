import ast
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dyncollapse import plotting
from dyncollapse.plotting import (
    PALETTE,
    label_panels,
    next_colour,
    plot_alignment,
    plot_eigenvalues,
    plot_order,
    plot_paths,
    plot_ratios,
    plot_spectrum,
    plot_sweep,
    ramp,
)


@pytest.fixture
def ax():
    return Figure().add_subplot()


DRAWN = {
    "spectrum": lambda ax, **style: plot_spectrum(ax, [2.0, 1.0], **style),
    "eigenvalues": lambda ax, **style: plot_eigenvalues(ax, [2.0, 1.0, 0.0], 1e-9, 1e-4, **style),
    "ratios": lambda ax, **style: plot_ratios(ax, [2.0, 1.0], **style),
    "order": lambda ax, **style: plot_order(ax, [0.1, 0.01], [0.2, 0.02], 1.0, **style),
    "paths": lambda ax, **style: plot_paths(ax, [0.0, 1.0], [[1.0], [2.0]], **style),
    "sweep": lambda ax, **_style: plot_sweep(ax, [1, 2], [[1.0], [2.0]]),
    "alignment": lambda ax, **_style: plot_alignment(ax, [[1.0, 0.0], [0.0, 1.0]]),
}
COLOURED = ("spectrum", "eigenvalues", "ratios", "order")


@pytest.mark.parametrize("name", DRAWN)
def test_every_function_returns_its_axes(ax, name):
    assert DRAWN[name](ax) is ax


def test_every_function_of_the_package_that_plots_returns_axes():
    package = Path(plotting.__file__).parent
    found = {
        node.name: ast.unparse(node.returns).strip("'\"")
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("plot_")
    }
    assert {"plot_spectrum", "plot_d0", "plot_ends", "plot_rates"} <= set(found)
    assert set(found.values()) == {"Axes"}


def test_every_exported_function_is_drawn_here():
    public = {name for name in vars(plotting) if name.startswith("plot_")}
    assert public == {f"plot_{name}" for name in DRAWN}


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_those_of_the_palette_in_turn_unless_given(ax, name):
    assert DRAWN[name](ax).lines[0].get_color() == PALETTE[0]
    taken = len(ax.lines)
    assert DRAWN[name](ax).lines[taken].get_color() != PALETTE[0]
    taken = len(ax.lines)
    assert DRAWN[name](ax, color="0.3").lines[taken].get_color() == "0.3"
    taken = len(ax.lines)
    assert DRAWN[name](ax, c="0.2").lines[taken].get_color() == "0.2"


def test_colours_begin_again_when_all_are_taken(ax):
    for colour in PALETTE:
        assert next_colour(ax) == colour
        ax.plot([1], [1], color=colour)
    assert next_colour(ax) == PALETTE[0]


def test_the_palette_is_that_of_the_figures():
    style = (Path(__file__).parent.parent / "figures" / "paper.mplstyle").read_text()
    (cycle,) = re.findall(r'cycler\("color", \[(.*)\]\)', style)
    assert tuple(f"#{colour}" for colour in re.findall(r"[0-9A-F]{6}", cycle)) == PALETTE


@pytest.mark.parametrize("count", [1, 2, 16, 300])
def test_a_ramp_goes_from_dark_to_light(count):
    colours = ramp(count)
    luminance = np.array([to_rgb(colour) for colour in colours]) @ [0.2126, 0.7152, 0.0722]
    assert len(colours) == count
    assert (np.diff(luminance) > -0.005).all()  # colours have 8 bits
    assert count == 1 or luminance[-1] > luminance[0] + 0.4


def test_paths_have_a_ramp_unless_colours_are_given(ax):
    plot_paths(ax, [0.0, 1.0], np.ones((2, 3)))
    assert [line.get_color() for line in ax.lines] == ramp(3)
    with pytest.raises(ValueError, match="argument"):
        plot_paths(ax, [0.0, 1.0], np.ones((2, 3)), ["C0"])


def test_panels_have_letters_if_there_are_several():
    axes = Figure().subplots(1, 2)
    axes[0].set_title("left")
    label_panels(axes)
    assert [one.get_title() for one in axes] == ["(a) left", "(b)"]
    (alone,) = [Figure().add_subplot()]
    label_panels([alone])
    assert alone.get_title() == ""


@pytest.mark.parametrize("ranks", [1, 3, 4, 5, 16])
def test_a_sweep_names_its_ranks_and_ticks_whole_values(ax, ranks):
    plot_sweep(ax, [1, 2, 3, 4], np.ones((4, ranks)) / np.arange(1, ranks + 1))
    labels = ax.get_legend_handles_labels()[1]
    assert labels[0].startswith("rank 1")
    assert labels[-1].startswith(f"rank {ranks}")
    assert len(labels) == (ranks if ranks <= 4 else 3)
    assert ax.get_xticks().tolist() == [1, 2, 3, 4]


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
    (image,) = plot_alignment(ax, np.array([[-1.0, 0.2], [0.1, 0.9]])).images
    assert np.array_equal(image.get_array(), [[1.0, 0.2], [0.1, 0.9]])
    assert image.get_clim() == (0, 1)


def test_order_line_has_the_given_slope(ax):
    steps = np.array([0.1, 0.01])
    plot_order(ax, steps, 3 * steps, 1.0)
    fitted = ax.lines[1]
    assert np.allclose(fitted.get_ydata(), 3 * fitted.get_xdata())


def test_order_has_a_reference_line_through_the_same_centre(ax):
    steps = np.array([0.1, 0.01])
    plot_order(ax, steps, 3 * steps, 1.0, reference=2.0, label="measured")
    (reference,) = [line for line in ax.lines if "reference" in line.get_label()]
    x, y = np.log(reference.get_xdata()), np.log(reference.get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(2.0)
    assert y.mean() == pytest.approx(np.log(3 * steps).mean())
    assert reference.get_linestyle() == "--"


@pytest.mark.parametrize("dim", [1, 2, 16, 128, 2048])
def test_spectrum_of_embeddings_is_within_its_axes_and_zeros_are_hollow(ax, dim):
    values = np.linspace(2.0, 1.0, dim)
    values[(dim + 1) // 2 :] = 0
    plot_eigenvalues(ax, values, 1e-12, 1e-4)
    drawn = [line for line in ax.lines if len(line.get_xdata()) and line.get_label() != "collapsed below"]
    ranks = np.concatenate([line.get_xdata() for line in drawn])
    assert sorted(ranks) == list(range(1, dim + 1))
    low, high = ax.get_ylim()
    assert all(low < y < high for line in drawn for y in line.get_ydata())
    zeros = [line for line in drawn if line.get_label() == "exactly 0"]
    assert sum(len(line.get_xdata()) for line in zeros) == dim // 2
    assert all(line.get_markerfacecolor() == "none" and line.get_ydata().max() < 1e-12 for line in zeros)


@pytest.mark.parametrize("dim", [1, 2, 3, 16, 128, 2048])
def test_ranks_are_whole_and_start_at_1(ax, dim):
    plot_eigenvalues(ax, np.ones(dim), 0.0, 1e-4)
    ticks = ax.get_xticks()
    assert ticks[0] == 1
    assert all(tick == int(tick) and 1 <= tick <= dim for tick in ticks)
    assert len(ticks) >= min(dim, 3)


@pytest.mark.parametrize("dim", [1, 2, 16, 2048])
@pytest.mark.parametrize("zeros", [False, True])
def test_legend_hides_nothing_and_is_not_cut(dim, zeros):
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    values = np.ones(dim)
    values[dim // 2 :] = 0 if zeros else 1
    plot_eigenvalues(left, values, 1e-12, 1e-4)
    plot_ratios(right, np.ones(dim))
    figure.canvas.draw()
    for ax in (left, right):
        legend, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
        assert legend.y0 >= inside.y1
        assert legend.x1 <= inside.x1 + 1
        assert legend.y1 <= figure.bbox.y1


def test_nothing_that_varies_is_still_drawn(ax):
    plot_eigenvalues(ax, np.zeros(3), 0.0, 0.0)
    assert ax.get_ylim()[0] > 0


@pytest.mark.parametrize(("top", "scale"), [(0.0, "linear"), (3.0, "linear"), (1e4, "symlog")])
def test_ratios_keep_the_threshold_in_sight(ax, top, scale):
    plot_ratios(ax, np.array([top, top / 2, 0.0]))
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert low == 0
    assert high > max(1, top)
    axis = ax.transData.transform
    (_, bottom), (_, one), (_, edge) = axis((1, 0)), axis((1, 1)), axis((1, high))
    assert (one - bottom) / (edge - bottom) > 0.1


def test_sweep_has_a_line_per_rank_and_one_per_distinct_rest_value(ax):
    x, values = [0.1, 1.0, 10.0], np.array([[3.0, 1.0, 0.1], [3.0, 0.5, 0.0], [3.0, 0.1, np.nan]])
    rest = np.array([[np.nan, 2.0, 2.0 * (1 + 1e-12)], [np.nan, 1.0, 1.0], [np.nan, 0.0, 0.0]])
    plot_sweep(ax, x, values, rest=rest, threshold=1.0)
    *ranks, at_rest, threshold = ax.lines
    assert [line.get_ydata().tolist() for line in ranks[:2]] == values.T[:2].tolist()
    assert len(ranks) == 3
    assert at_rest.get_ydata()[:2].tolist() == [2.0, 1.0]
    assert np.isnan(at_rest.get_ydata()[2])
    assert threshold.get_xdata()[0] == 1.0
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_a_rest_value_without_neighbours_is_seen_where_the_legend_names_it(ax):
    plot_sweep(ax, [0.5, 2.0], [[3.0, 1.0], [3.0, 1e-9]], rest=[[1.0, 2.0], [0.0, 0.0]])
    for line, label in zip(*ax.get_legend_handles_labels(), strict=True):
        seen = int(np.isfinite(line.get_ydata()).sum())
        assert seen >= 2 or (seen == 1 and line.get_marker() not in ("", "None", None)), label


def test_sweep_without_closed_form_or_threshold_in_sight_draws_ranks_only(ax):
    plot_sweep(ax, [0, 1], [[1.0], [2.0]], rest=[[np.nan], [np.inf]], threshold=5.0)
    assert len(ax.lines) == 1
    assert ax.get_xscale() == "linear"
