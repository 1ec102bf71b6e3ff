"""What the page of an encoder's two spaces shows, as a record."""

import pytest
import torch
from helpers.html import Page

from dyncollapse import diagnose
from dyncollapse.bridge.evaluation.depth import StageRank
from dyncollapse.bridge.evaluation.diagnose import DiagnosedSpaces
from dyncollapse.bridge.evaluation.page import spaces_page


@pytest.fixture(scope="module")
def diagnosed():
    r = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = r.clone()
    z[:, 4:] = 0
    reports = {"representation": diagnose(r, r + 0.1 * r.flip(0)), "embedding": diagnose(z, space="embedding")}
    return DiagnosedSpaces(reports, layers=[], assumptions=("32 x 32 pixels",), depth=(StageRank("layer1", 16, 4.2),))


def test_both_spaces_stand_side_by_side(diagnosed):
    page = spaces_page(diagnosed.as_values(), diagnosed.remarks(), "r.pth", "dyncollapse bridge diagnose")
    assert page.verdict == "Collapsed dimensions: 0 of 6 in the representation, 2 of 6 in the embedding."
    assert [text.partition(":")[0] for text in page.facts] == ["representation", "embedding"]
    assert len(page.pictures) == 3  # rho of the first alone
    titles = [table.title for table in page.tables]
    fates = ["Dimensions by fate, representation", "Dimensions by fate, embedding"]
    assert titles == [*fates, "Measures", "Effective rank by depth"]
    assert list(page.tables[2].columns) == ["measure", "representation", "embedding", "definition"]
    assert "Assumed: 32 x 32 pixels" in page.notes


def test_remedies_of_the_spaces_are_shown_once(diagnosed):
    advice = {"try": "Give another view.", "effect": "", "source": "", "kind": "check"}
    values = diagnosed.as_values()
    for space in values["spaces"].values():
        space["remedies"] = [advice]
    assert list(spaces_page({name: values[name] for name in values if name != "remedies"}).remedies) == [advice]
    assert list(spaces_page({**values, "remedies": []}).remedies) == []  # what both spaces together say counts


def test_the_same_diagnosis_is_the_same_page(diagnosed):
    text = diagnosed.to_html()
    assert text == diagnosed.to_html()
    assert len(set(Page(text).ids)) == len(Page(text).ids)
