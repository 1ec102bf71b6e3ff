"""The one template of all pages: nothing in it acts, asks or clashes, and everybody can read it."""

import itertools
import re
from importlib.resources import files

import pytest
from helpers.html import Page as Read

from dyncollapse.runtime.page.record import Page, Picture, Table, alone
from dyncollapse.runtime.page.render import MOST_ROWS, render, save_page

STYLE = files("dyncollapse.runtime.page").joinpath("page.css").read_text()
EVIL = "<script>alert('1') & \"2\"</script>"
# What would act on a browser, on the template, or on a terminal that shows the file.
HOSTILE = (
    EVIL, "\" onload='alert(1)' x=\"", "{{ 7 * 7 }}{% raw %}", "</title></style><svg/onload=alert(1)>", "--><b>",
    "javascript:alert(1)", "]]>", "&lt;b&gt;",
)  # fmt: skip
CONTROLS = ("\x1b[31m", "\x9b2J", "\u202eexe.npy", "\u2066", "\u200b", "\r\n", "\0", "\udcff")


def plotted(ax):
    ax.plot([1, 2], [1, 2], label="$x_1$")
    ax.legend()


SVG = Picture("", "", alone(plotted)).svg


def shown(text, wide=False):
    """A picture with these texts, whose file is drawn already: it is the same with all of them."""
    made = Picture(text, text, alone(plotted), wide=wide)
    vars(made)["svg"] = SVG
    return made


def page(text="text", **others):
    """A page with a text in every place that takes one."""
    given = {
        "command": "simulate", "subject": text, "verdict": text, "facts": [text], "remarks": [text],
        "pictures": [shown(text), shown(text, wide=True)],
        "tables": [Table(text, [text, "b"], [[text, 1.5]]), Table(text, ["a", text], [["x", text]], folded=True)],
        "cautions": [text], "notes": [text],
        "remedies": [{"try": text, "effect": text, "source": text, "kind": kind} for kind in ("remedy", "check")],
        "settings": {"file": text, text: [text], "table": {text: text}, "seed": 3, "versions": {"torch": text}},
        "reproduce": text,
    }  # fmt: skip
    return Page(**given | others)


WHOLE = render(page())


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_in_a_text_is_text(text):
    found = render(page(text))
    read = Read(found)
    assert read.text.count(text) >= 22
    assert read.tags == Read(WHOLE).tags
    assert "<script" not in found
    assert {name for _, attributes in read.attributes for name in attributes if name.startswith("on")} == set()


@pytest.mark.parametrize("text", CONTROLS)
def test_controls_are_shown_and_not_obeyed(text):
    found = render(page(f"a{text}b"))
    assert found.isascii()
    assert set(map(ord, found)) & set(range(32)) == {10}
    assert text not in Read(found).text
    assert "a\\" in Read(found).text


def test_the_same_page_is_the_same_bytes():
    again = [Picture("text", "text", alone(plotted), wide=wide) for wide in (False, True)]
    assert render(page(pictures=again)) == WHOLE


def test_it_asks_for_nothing_and_its_policy_forbids_it():
    read = Read(WHOLE)
    assert not {"script", "link", "img", "iframe", "base", "form", "object", "embed"} & set(read.tags)
    assert set(re.findall(r"\w+://[^\"'\s<>]+", WHOLE)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    (policy,) = [one["content"] for tag, one in read.attributes if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy


def test_names_of_several_pictures_do_not_clash():
    read = Read(WHOLE)
    assert len(read.ids) == len(set(read.ids))
    assert read.tags.count("svg") == 2
    used = [link[1:] for link in read.links if link.startswith("#")] + re.findall(r"url\(#([^)]+)\)", WHOLE)
    used += " ".join(one["aria-labelledby"] for _, one in read.attributes if "aria-labelledby" in one).split()
    assert set(used) <= set(read.ids)
    assert any(name.startswith("p2-") for name in used)


def test_pictures_have_text_alternatives():
    read = Read(render(page(pictures=[Picture("A spectrum", "It falls.", alone(plotted))])))
    svg = next(one for tag, one in read.attributes if tag == "svg")
    assert (svg["role"], svg["aria-labelledby"]) == ("img", "p1-title p1-description")
    assert {"A spectrum", "It falls."} <= set(read.texts)


def test_a_picture_that_cannot_be_drawn_is_a_line():
    def refuse():
        raise RuntimeError(f"no font {EVIL}\nand more")

    read = Read(render(page(pictures=[Picture("A spectrum", "It falls.", refuse)])))
    assert "svg" not in read.tags
    assert f"The picture could not be drawn (no font {EVIL})." in read.text


def test_headings_are_in_order_and_tables_name_their_cells():
    read = Read(WHOLE)
    assert [tag for tag in read.tags if re.fullmatch("h[1-6]", tag)] == ["h1", *["h2"] * 6]
    assert dict(read.attributes)["html"]["lang"] == "en"
    assert read.tags.count("caption") == read.tags.count("thead") == 2
    assert all(one.get("scope") in ("col", "row") for tag, one in read.attributes if tag == "th")
    assert read.tags.count("main") == read.tags.count("title") - 2 == 1  # each picture has a title, too


def test_sections_without_content_are_left_out():
    read = Read(render(Page("simulate", "4 dimensions", "Nothing collapsed.")))
    assert not {"h2", "svg", "table", "details", "pre"} & set(read.tags)


def test_remedies_and_checks_are_apart():
    text = Read(WHOLE).text
    assert text.index("What to try") < text.index("What would tell the causes apart") < text.index("Settings")


def test_cells_are_shown_as_a_person_writes_them():
    rows = [["a", 0.123456, 12345, None, True, float("nan"), "1.5 ± 0.1"]]
    table = Table("t", ["name", "x", "n", "none", "flag", "nan", "spread"], rows)
    assert table.kinds == ["", "number", "number", "", "", "number", "number"]
    cells = re.findall(r"<t[dh][^>]*>([^<]+)</t", render(page(tables=[table])).split("<tbody>")[1].split("</tbody>")[0])
    assert cells == ["a", "0.1235", "12345", "-", "yes", "-", "1.5 &#177; 0.1"]


def test_long_tables_are_cut_and_say_so():
    rows = [[str(k), k] for k in range(MOST_ROWS + 5)]
    read = Read(render(page(tables=[Table("t", ["a", "b"], rows)], settings={})))
    assert read.tags.count("tr") == MOST_ROWS + 1
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 5} rows" in read.text


def colours(block):
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block))


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """The contrast of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


LIGHT, DARK, PRINTED = (colours(block) for block in re.findall(r":root \{([^}]+)\}", STYLE))


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINTED], ids=["light", "dark", "print"])
def test_texts_have_contrast(scheme):
    assert set(scheme) == set(LIGHT)
    for text, ground in itertools.product(("ink", "quiet", "warning", "accent"), ("paper", "raised")):
        assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
    assert contrast("#000000", scheme["card"]) >= 7  # Matplotlib's text on what lies behind it


def test_contrast_is_that_of_the_standard():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_a_page_that_cannot_be_written_is_a_line(tmp_path):
    assert save_page(tmp_path / "report.html", WHOLE) == []
    assert (tmp_path / "report.html").read_text() == WHOLE
    (line,) = save_page(tmp_path / "nowhere/report.html", WHOLE)
    assert line.endswith("report.html could not be written (No such file or directory)")
