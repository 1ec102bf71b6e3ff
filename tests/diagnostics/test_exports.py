"""The page, the table and the picture show the same report."""

import csv
import io
from dataclasses import replace

import pytest
import torch
from helpers.html import Page

from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.exports import as_csv, as_html, as_png, draw
from dyncollapse.diagnostics.page import diagnosis_page, spectrum_pictures
from dyncollapse.diagnostics.sentences import FATE_MEANINGS, augmentation_sentence, threshold_sentence
from dyncollapse.diagnostics.verdict import Fate
from dyncollapse.runtime.page.render import render

EVIL = "<script>alert('1') & \"2\"</script>"


def rows(dim, samples=200, alive=None):
    z = torch.randn(samples, dim, generator=torch.Generator().manual_seed(0))
    z[:, alive if alive is not None else dim :] = 0
    return z


@pytest.fixture(scope="module")
def report():
    z = rows(8, alive=5)
    return diagnose(z, z + 0.1 * rows(8, alive=5).flip(0))


def test_page_tells_everything_of_the_report(report):
    text = Page(
        as_html(report, {"file": "z.npy", "positives": ["p.npy"], "key": None, "versions": {"torch": "2"}})
    ).text
    assert report.verdict.sentence.replace("`", "") in text
    assert all(
        name in text and definition in text
        for name, definition in report.conventions.items()
        if name in report.measures
    )
    assert all(line in text for line in (*report.warnings, *report.notes))
    assert threshold_sentence(report) in text
    assert augmentation_sentence(report) in text
    assert f"{report.measures['rankme']:.4g}" in text
    assert "not defined" in text  # lidar has two views only
    assert "p.npy" in text
    assert "torch 2" in text
    assert "None" not in text
    assert f"{float(report.spectrum[0]):.4g}" in text


def test_page_shows_the_verdict_first_then_pictures_fates_and_settings(report):
    page = as_html(report, {"file": "z.npy"}, "dyncollapse diagnose z.npy")
    places = [page.index(words) for words in ("</h1>", "<svg", "Dimensions by fate", "Measures", "<h2>Settings")]
    assert places == sorted(places)
    assert "<code>dyncollapse diagnose z.npy</code>" in page
    for fate, meaning in FATE_MEANINGS.items():
        count = report.verdict.fates.count(fate)
        row = f'<th scope="row">{fate}</th>\n<td class="number">{count}</td>\n<td class="words">{meaning}</td>'
        assert (row in page) == (count > 0), fate
    assert set(FATE_MEANINGS) == set(Fate)


def test_page_from_python_is_that_of_the_command_without_its_settings(report):
    assert report.to_html() == as_html(report)
    assert "<h1>" in report.to_html()


def test_remedies_of_the_json_are_shown():
    values = diagnose(rows(4)).as_values()
    advice = {"try": "Weaken the crop.", "effect": "rho falls to 0.8.", "source": "theory: rho = 1", "kind": "remedy"}
    text = Page(render(diagnosis_page(values | {"remedies": [advice]}))).text
    assert "What to try" in text
    assert "Weaken the crop. rho falls to 0.8. (theory: rho = 1)" in text


# What would act on a browser, on a terminal, or on the template itself.
HOSTILE = (EVIL, "\" onload='alert(1)' x=\"", "{{ 7 * 7 }}{% raw %}", "</title></style><svg/onload=alert(1)>")


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_in_a_name_is_text(report, name):
    own = replace(report, space=name, warnings=(name,), verdict=replace(report.verdict, sentence=name))
    config = {"file": name, "space": name, name: name, "list": [name], "table": {name: name}, "assumptions": [name]}
    pictures = spectrum_pictures(own.as_values())  # drawn once for both pages
    page = as_html(own, config, pictures=pictures)
    found = Page(page)
    assert found.text.count(name) >= 11
    harmless = dict.fromkeys(config, "") | {"assumptions": [""]}
    assert found.tags == Page(as_html(own, harmless, pictures=pictures)).tags
    assert "<script" not in page


def test_terminal_codes_and_line_breaks_in_a_name_are_shown(report):
    page = as_html(report, {"file": "red\x1b[31m\r\nnext", "assumptions": ["\x9b2J"]})
    assert page.isascii()
    assert not {"\x1b", "\r"} & set(page)
    assert r"red\x1b[31m\r\nnext" in page
    assert r"\x9b2J" in page


def test_a_picture_that_cannot_be_drawn_is_a_line_on_the_page(report, monkeypatch):
    def refuse(*_values):
        raise RuntimeError(f"no font {EVIL}")

    monkeypatch.setattr("dyncollapse.plotting.plot_eigenvalues", refuse)
    page = Page(as_html(report, {}))
    assert page.tags.count("svg") == 1  # that of rho
    assert f"The picture could not be drawn (no font {EVIL})." in page.text


def test_data_frame_says_what_the_csv_file_says(report):
    frame = report.to_pandas()
    assert list(frame.columns) == as_csv(report).splitlines()[0].split(",")
    assert frame.eigenvalue.tolist() == report.spectrum.tolist()
    assert frame.fate.tolist() == report.verdict.fates
    assert frame.collapsed.dtype == bool


def test_same_report_same_page(report):
    assert as_html(report, {}) == as_html(report, {})


@pytest.mark.parametrize("dim", [1, 2, 128])
def test_page_of_any_dimension(dim):
    found = Page(as_html(diagnose(rows(dim)), {}))
    assert found.tags.count("tr") >= dim


def test_page_of_2048_dimensions_has_no_large_picture():
    # The spectrum is what makes the page: a short one, repeated, saves the time of a large diagnosis.
    few = diagnose(rows(8, alive=4))
    v = few.verdict
    spectrum = few.spectrum.repeat(256).sort(descending=True).values
    many = replace(few, dim=2048, spectrum=spectrum, verdict=replace(v, dimensions=v.dimensions * 256))
    page = as_html(many, {})
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert len(svg) < 200_000
    assert len(as_csv(many).splitlines()) == 2049


def test_csv_holds_the_numbers_to_the_bit(report):
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [float(line["eigenvalue"]) for line in lines] == report.spectrum.tolist()
    assert [line["fate"] for line in lines] == report.verdict.fates
    assert [line["collapsed"] == "True" for line in lines] == report.verdict.collapsed


def test_picture_has_ratios_where_there_are_any(report):
    assert len(draw(report).axes) == 2
    assert len(draw(diagnose(rows(4))).axes) == 1
    still = torch.ones(20, 3)
    assert len(draw(diagnose(still, still)).axes) == 1  # nothing varies: no ratio to draw
    assert as_png(report).startswith(b"\x89PNG")
