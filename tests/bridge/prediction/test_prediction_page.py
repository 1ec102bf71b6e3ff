"""What the page of a prediction shows, as a record."""

from dataclasses import replace

import pytest
from helpers.html import Page

from dyncollapse.bridge import PredictOptions, predict, prediction_html
from dyncollapse.bridge.prediction.page import prediction_page
from dyncollapse.bridge.prediction.run import emptied_share
from dyncollapse.bridge.prediction.wording import chance

OPTIONS = PredictOptions("digits", images=200, directions=8, loss=("spectral", "byol"))


@pytest.fixture(scope="module")
def prediction():
    return predict(OPTIONS)


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


def test_shares_of_variance_are_those_of_all_of_it():
    found = predict(replace(OPTIONS, directions=2)).found
    none = replace(found, shared=found.shared & False)
    assert 0 < found.share < 0.9
    assert emptied_share(none) == pytest.approx(found.share)
    assert f"which hold {found.share:.0%} of the variance" in chance(none, "two-sided")
