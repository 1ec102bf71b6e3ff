"""What the page of a prediction shows, as a record."""

from dataclasses import replace

import pytest
from helpers.html import Page
from matplotlib.figure import Figure

from dyncollapse.bridge import PredictOptions, predict, prediction_html
from dyncollapse.bridge.prediction.page import prediction_page
from dyncollapse.bridge.prediction.pictures import HIGHEST, draw_prediction, draw_ratios
from dyncollapse.bridge.prediction.run import emptied_share
from dyncollapse.bridge.prediction.table import AugmentationTable, Effect, OperationRow
from dyncollapse.bridge.prediction.wording import chance, conclusion

OPTIONS = PredictOptions("digits", images=200, directions=8, loss=("spectral", "byol"))


@pytest.fixture(scope="module")
def prediction():
    return predict(OPTIONS)


@pytest.fixture(scope="module")
def one_sided():
    return predict(replace(OPTIONS, images=400, directions=64, views="one-sided"))


def test_it_says_what_the_prediction_holds(prediction):
    page = prediction_page(prediction, OPTIONS)
    shared = int(prediction.found.shared.sum())
    assert page.verdict == f"The views share signal along {shared} of 8 directions."
    assert page.subject == "digits: 200 images"
    losses, operations = page.tables
    assert [row[0] for row in losses.rows] == ["spectral", "byol"]
    assert [row[0] for row in operations.rows][:2] == ["all operations", "crop alone"]
    assert page.reproduce == "dyncollapse predict --data digits --images 200 --directions 8 --loss spectral,byol"
    assert [picture.wide for picture in page.pictures] == [False, False, True]


def test_the_same_prediction_is_the_same_page(prediction):
    text = prediction_html(prediction, OPTIONS)
    assert text == prediction_html(prediction, OPTIONS)
    read = Page(text)
    assert read.tags.count("svg") == 3
    assert len(read.ids) == len(set(read.ids))


def words_of(figure):
    """All text of a figure."""
    figure.draw_without_rendering()
    return " ".join(one.get_text() for one in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_one_sided_views_are_not_said_to_share_signal_where_rho_is_below_1(one_sided):
    options = replace(OPTIONS, images=400, directions=64, views="one-sided")
    page = prediction_page(one_sided, options)
    found = one_sided.found
    below = f"{int(found.shared.sum())} of {found.count} directions"
    assert page.verdict == f"Rho is below 1 beyond its error along {below}."
    assert one_sided.sentence.startswith(f"{below} have rho below 1 beyond its error; ")
    assert page.tables[1].columns[1:3] == [f"rho < 1 of {found.count}", "others"]
    said = [page.verdict, *page.facts, one_sided.sentence, words_of(draw_prediction(one_sided))]
    said += [text for picture in page.pictures for text in (picture.title, picture.description)]
    said += [name for table in page.tables[1:] for name in table.columns]
    for wrong in ("share signal", "shares signal", "shared", "emptied", "suppressed"):
        assert not [one for one in said if wrong in one.replace("spectral", "")]


def table_of(gains, whole=5, directions=8):
    """A table in which leaving an operation out leaves so many more directions."""

    def effect(rank):
        return Effect(rank, directions - rank, float(rank), 0.5, 1.0)

    rows = tuple(OperationRow(name, effect(directions), effect(whole + gain)) for name, gain in gains.items())
    return AugmentationTable(200, directions, 1.0, effect(whole), rows)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ({"crop": 2, "noise": 1}, "crop costs most: without it 2 more of 8 directions would share signal."),
        ({"crop": 1, "flip": 0}, "crop costs most: without it 1 more of 8 directions would share signal."),
        (
            {"noise": 3, "crop": 3, "flip": 0, "blur": 3},
            "noise, crop and blur cost equally many: with any one left out, 3 more of 8 directions would share signal.",
        ),
        (
            {"noise": 1, "crop": 1},
            "noise and crop cost equally many: with either left out, 1 more of 8 directions would share signal.",
        ),
        ({"noise": 0, "crop": -1}, "No single operation costs a direction that sampling would show."),
    ],
)
def test_operations_that_cost_as_many_directions_are_all_named(gains, said, prediction):
    assert conclusion(replace(prediction, table=table_of(gains))) == said


def test_shares_of_variance_are_those_of_all_of_it():
    found = predict(replace(OPTIONS, directions=2)).found
    none = replace(found, shared=found.shared & False)
    assert 0 < found.share < 0.9
    assert emptied_share(none) == pytest.approx(found.share)
    assert f"which hold {found.share:.0%} of the variance" in chance(none, "two-sided")


def test_ratios_far_above_1_leave_the_threshold_to_be_seen(one_sided, prediction):
    assert float(one_sided.found.rho[-1]) > 10 * HIGHEST
    ax = Figure().add_subplot()
    draw_ratios(ax, one_sided.found)
    assert ax.get_ylim() == (0, HIGHEST)
    (marks,) = [line for line in ax.lines if line.get_marker() == "^"]
    above = int((one_sided.found.rho > HIGHEST).sum())
    assert len(marks.get_xdata()) == above
    assert marks.get_label().endswith(f": {above}")
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert above + sum(len(line.get_xdata()) for line in points) == one_sided.found.count
    ax = Figure().add_subplot()
    draw_ratios(ax, prediction.found)
    assert not [line for line in ax.lines if line.get_marker() == "^"]


def test_legends_hide_no_points(one_sided):
    five = replace(
        OPTIONS, directions=12, loss=("infonce", "spectral", "vcreg", "barlow", "byol"), train=True, steps=20
    )
    for one in (one_sided, predict(five)):
        figure = draw_prediction(one)
        figure.draw_without_rendering()
        legends = [(ax, ax.get_legend()) for ax in figure.findobj(lambda artist: hasattr(artist, "get_legend"))]
        shown = [(ax, legend) for ax, legend in legends if legend is not None]
        assert len(shown) == (4 if one.trained else 2)
        for ax, legend in shown:
            assert legend.get_window_extent().y1 < ax.get_window_extent().y0
