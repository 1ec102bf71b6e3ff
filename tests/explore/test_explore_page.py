"""The page in a real browser: sliders move numbers, which are the closed forms, and nothing is asked elsewhere."""

import json
import shlex
import signal
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from helpers.browser_tab import browser, tab
from test_serving import served

from dyncollapse import GaussianTask, escape_time, growth_rates, rest_singular_values
from dyncollapse.commands.main import main

pytestmark = pytest.mark.slow

SLIDER = """(words => {
  const one = [...document.querySelectorAll('marimo-slider')].find(e => e.shadowRoot?.textContent.includes(words));
  const thumb = one?.shadowRoot.querySelector('[role=slider]');
  thumb?.focus();
  return thumb ? Number(thumb.getAttribute('aria-valuenow')) : null;
})"""
CHOOSE = """((words, value) => {
  const one = [...document.querySelectorAll('marimo-dropdown')].find(e => e.shadowRoot?.textContent.includes(words));
  const select = one.shadowRoot.querySelector('select');
  select.value = [...select.options].find(o => o.text === value).value;
  select.dispatchEvent(new Event('change', {bubbles: true}));
})"""
PRESS = """(words => [...document.querySelectorAll('marimo-button')].find(
  e => e.shadowRoot?.textContent.includes(words)).shadowRoot.querySelector('button').click())"""
ROWS = """[...document.querySelectorAll('#numbers tbody tr')].map(
  row => Object.fromEntries([...row.cells].map(cell => [cell.dataset.column, cell.innerText])))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page in a browser, and the program that serves it."""
    pytest.importorskip("marimo")
    if browser() is None:
        pytest.skip("no browser is installed: chromium, google-chrome or chrome")
    folder = tmp_path_factory.mktemp("page")
    with served(folder) as (program, address, said), tab() as shown:
        shown.open(address, 1200)
        settled(shown, "summary", "Here k = 1.5.")
        yield shown, program, address, said


def settled(shown, name, words):
    """Wait until a text holds these words, and the flow of the setting is on the page; ask for one that takes long."""
    shown.wait(f"document.querySelector('#{name}')?.innerText.includes({json.dumps(words)})")
    ended = "document.querySelector('#summary')?.innerText.includes('At the end of')"
    if shown.wait(f"{ended} ? 'drawn' : document.querySelector('#long') && 'long'") == "long":  # on a slow machine
        shown.value(f"{PRESS}('Integrate the flow')")
    shown.wait(ended)
    shown.wait("document.querySelector('#numbers [data-column=population], #numbers [data-column=flow]') !== null")


def text(shown, name):
    return shown.value(f"document.querySelector('#{name}').innerText")


def numbers(shown, name):
    """A column of the table; infinite and unknown numbers are None."""
    return [None if row[name] == "-" else float(row[name]) for row in shown.value(ROWS)]


def four(values):
    """Numbers to four digits, as the page shows them; None for infinite ones."""
    return [None if value == float("inf") else float(f"{value:.4g}") for value in values]


def agree(shown, aug_strength, depth):
    """Assert that the page's numbers are the closed forms of one-sided Eq. 2 at these settings."""
    task = GaussianTask.block(16, 8, aug_strength)
    rest, growth = rest_singular_values(task).tolist(), growth_rates(task).tolist()
    assert numbers(shown, "aug_var") == [0.0] * 8 + [aug_strength] * 8
    assert numbers(shown, "rho") == four([0.0] * 8 + [aug_strength] * 8)  # a / (2 s) with s = 1/2
    assert numbers(shown, "rest_singular_value") == four(rest)
    starts = numbers(shown, "start")
    wanted = [escape_time(p, min(end, 2**0.5), x0, depth) for p, end, x0 in zip(starts, rest, growth, strict=True)]
    # The starts are read with four digits.
    assert numbers(shown, "escape_time") == [
        None if time == float("inf") else pytest.approx(time, rel=2e-3, abs=1e-3) for time in wanted
    ]


def moved(shown, words, key, times):
    """Move a slider by keys."""
    shown.wait(f"{SLIDER}({json.dumps(words)}) !== null")
    shown.press(key, times)


def test_numbers_on_the_page_are_the_closed_forms(page):
    shown, *_ = page
    assert shown.value("document.title") == "dyncollapse explore"
    agree(shown, 1.5, 1)
    # From this start the modes of one layer hardly disturb each other: the flow ends where the closed forms say.
    assert numbers(shown, "closed form") == pytest.approx(numbers(shown, "population"), rel=1e-2, abs=1e-6)
    assert "die from k = 1 on. Here k = 1.5." in text(shown, "summary")
    assert "8 by strong augmentation (dead)" in text(shown, "summary")
    moved(shown, "augmentation variance", "ArrowLeft", 14)
    settled(shown, "summary", "Here k = 0.8.")
    agree(shown, 0.8, 1)
    assert "No dimension of 16 collapsed." in text(shown, "summary")
    moved(shown, "layers", "ArrowRight", 1)
    settled(shown, "command", "--depth 2")
    agree(shown, 0.8, 2)
    assert "balanced and aligned" in text(shown, "caveats")
    assert not shown.errors()


def test_the_command_on_the_page_gives_its_numbers(page, tmp_path):
    shown, *_ = page
    shown.wait(f"({PRESS}('Run SGD'), true)")
    shown.wait("document.querySelector('#summary')?.innerText.includes('At the end of SGD')")
    shown.wait("document.querySelector('#numbers [data-column=sgd]') !== null")
    program, *words = shlex.split(text(shown, "command"))
    assert program == "dyncollapse"
    assert "sgd,population" in words
    done = CliRunner().invoke(main, [*words, "--json", "--out", str(tmp_path / "run")])
    found = json.loads(done.stdout)
    for name in ("sgd", "population"):
        ranked = sorted(numbers(shown, name), reverse=True)
        assert ranked == pytest.approx(found["dynamics"][name]["product_singular_values"], rel=2e-3)
    escapes = [mode["escape_time"] for mode in found["prediction"]["modes"]]
    assert numbers(shown, "escape_time") == [None if one is None else pytest.approx(one, rel=1e-3) for one in escapes]
    assert found["verdict"]["sentence"] in text(shown, "summary")
    assert not shown.errors()


def test_a_loss_without_closed_forms_says_so_and_contradictions_are_one_line(page):
    shown, *_ = page
    shown.value(f"{CHOOSE}('loss', 'ntxent')")
    assert "two-sided" in shown.wait("document.querySelector('#problem')?.innerText")
    shown.value(f"{CHOOSE}('views', 'two-sided')")
    settled(shown, "caveats", "No closed forms")
    assert "--loss ntxent" in text(shown, "command")
    assert set(numbers(shown, "rest_singular_value")) == {None}
    assert not shown.errors()


@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_fits_its_window(page, width, tmp_path):
    shown, *_ = page
    shown.resize(width)
    pictures = "[...document.querySelectorAll('img.picture')].map(e => e.getBoundingClientRect())"
    shown.wait(f"{pictures}.length > 1 && {pictures}.every(r => r.width > 300 && r.right <= innerWidth)")
    assert shown.value("document.documentElement.scrollWidth") <= width
    assert shown.value("[...document.querySelectorAll('img.picture')].every(e => e.alt && e.naturalWidth)")
    shown.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_nothing_is_asked_elsewhere_and_the_end_does_not_wait_for_open_pages(page):
    shown, program, address, said = page
    host = urlsplit(address).netloc
    asked = [one for one in shown.requests() if not one.startswith("data:")]
    assert len(asked) > 10
    assert {urlsplit(one).netloc for one in asked} == {host}
    shown.value(f"{PRESS}('Run SGD')")
    shown.wait("document.querySelector('.progress') !== null")  # and SGD is not waited for
    program.send_signal(signal.SIGINT)
    assert program.wait(30.0) == 0
    assert said().split() == ["Stopped."]
    assert "Traceback" not in said()
