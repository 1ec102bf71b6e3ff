"""The page is one file that needs nothing else, and well formed; the table and the picture show the same report."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.exports import as_csv, as_html, as_png, draw
from dyncollapse.diagnostics.sentences import FATE_MEANINGS, augmentation_sentence, threshold_sentence
from dyncollapse.diagnostics.verdict import Fate

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = "<script>alert('1') & \"2\"</script>"


class Page(HTMLParser):
    """Every tag closed in order; texts and addresses collected."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.links, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in {"href", "src", "xlink:href", "style"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)


def rows(dim, samples=200, alive=None):
    z = torch.randn(samples, dim, generator=torch.Generator().manual_seed(0))
    z[:, alive if alive is not None else dim :] = 0
    return z


@pytest.fixture(scope="module")
def report():
    z = rows(8, alive=5)
    return diagnose(z, z + 0.1 * rows(8, alive=5).flip(0))


def test_page_is_well_formed_and_needs_nothing_else(report):
    page = as_html(report, {"file": "z.npy"})
    found = Page(page)
    assert found.tags.count("svg") == 1
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all("url(" not in link or "url(#" in link for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert page.isascii()


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
    assert repr(float(report.spectrum[0])) in text


def test_page_names_the_fates_after_the_verdict_and_fits_a_narrow_window(report):
    page = as_html(report, {"file": "z.npy"})
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert page.count("<table>") == page.count('<div class="scroll"><table>') == 4
    verdict, picture = page.index("</h1>"), page.index("<svg")
    for fate, meaning in FATE_MEANINGS.items():
        count = report.verdict.fates.count(fate)
        row = f'<tr><td>{fate}</td><td class="number">{count}</td><td class="words">{meaning}</td></tr>'
        assert (verdict < page.find(row) < picture) == (count > 0), fate
    assert set(FATE_MEANINGS) == set(Fate)


# What would act on a browser, on a terminal, or on the template itself.
HOSTILE = (EVIL, "\" onload='alert(1)' x=\"", "{{ 7 * 7 }}{% raw %}", "</title></style><svg/onload=alert(1)>")


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_in_a_name_is_text(report, name):
    own = replace(report, space=name, warnings=(name,), verdict=replace(report.verdict, sentence=name))
    config = {"file": name, "space": name, name: name, "list": [name], "table": {name: name}, "assumptions": [name]}
    page = as_html(own, config)
    found = Page(page)
    assert found.text.count(name) >= 11
    assert found.tags == Page(as_html(own, dict.fromkeys(config, "") | {"assumptions": [""]})).tags
    assert "<script" not in page


def test_terminal_codes_and_line_breaks_in_a_name_are_shown(report):
    page = as_html(report, {"file": "red\x1b[31m\r\nnext", "assumptions": ["\x9b2J"]})
    assert page.isascii()
    assert not {"\x1b", "\r"} & set(page)
    assert r"red\x1b[31m\r\nnext" in page
    assert r"\x9b2J" in page


def test_a_picture_that_cannot_be_drawn_is_a_line_on_the_page(report, monkeypatch):
    def refuse(_report):
        raise RuntimeError(f"no font {EVIL}")

    monkeypatch.setattr("dyncollapse.diagnostics.exports.draw", refuse)
    page = Page(as_html(report, {}))
    assert "svg" not in page.tags
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
