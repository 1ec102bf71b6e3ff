"""The pages of all five commands in a real browser, narrow and wide, light and dark."""

import json
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.browser_tab import browser, tab
from helpers.html import Page
from helpers.programs import SMALL

from dyncollapse.commands.main import main
from dyncollapse.runtime.command_line import command_line
from dyncollapse.runtime.page.render import PAGE

COMMANDS = ("simulate", "sweep", "diagnose", "predict", "bridge diagnose")
# A name that would act on a browser, turn the text around, or break the line.
NAME = "<b>'z'\u202e & \"very long name of a file without a single space in it\".npy"


def call(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.stderr, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder for each command with its page, and beside it what the command printed with --html."""
    home = tmp_path_factory.mktemp("pages")
    rng, small = np.random.default_rng(0), [*SMALL, "--dynamics", "sgd"]
    z = rng.standard_normal((60, 12)) * np.logspace(0, -6, 12)
    for name in (NAME, "other.npy"):
        np.save(home / name, (z + 0.1 * rng.standard_normal(z.shape) * np.logspace(0, -6, 12)).astype("f4"))
    call("bridge", "pretrain", "--data", "digits", "--epochs", 1, "--batch-size", 512, "--no-tensorboard",
         "--monitor-every", 0, "--out", home / "run")  # fmt: skip
    words = {
        "simulate": ["simulate", *small, "--depth", 2],
        "sweep": ["sweep", *small, "--aug-strength", "0.5,1.5,2.5", "--depth", "1,2", "--workers", 1],
        "diagnose": ["diagnose", home / NAME, "--positives", home / "other.npy"],
        "predict": ["predict", "--data", "digits", "--images", 200, "--directions", 12, "--loss", "spectral"],
        "bridge diagnose": ["bridge", "diagnose", "--checkpoint", home / "run"],
    }
    for command in COMMANDS:
        printed = call(*words[command], "--out", home / command, "--html")
        (home / f"{command}.html").write_text(printed)
    return home


@pytest.fixture(scope="module")
def window():
    if browser() is None:
        pytest.skip("no browser is installed: chromium, google-chrome or chrome")
    with tab() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_folder_holds_the_page_that_is_printed(home, command):
    text = (home / command / PAGE).read_text()
    assert text == (home / f"{command}.html").read_text()
    read = Page(text)
    assert len(read.ids) == len(set(read.ids))
    assert {"svg", "table", "details"} <= set(read.tags)
    assert read.tags.count("h1") == 1
    assert f"dyncollapse {command} " in read.text  # the command that gives the result
    assert "Seed 0." in read.text


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_fits_its_window_and_asks_for_nothing(home, window, command, width, dark):
    path = home / command / PAGE
    window.open(path, width, dark=dark)
    assert window.value("innerWidth") == width
    for opened in ("false", "true"):
        window.value(f"document.querySelectorAll('details').forEach(one => one.open = {opened})")
        # Not innerWidth, which grows with the page on a telephone.
        assert window.value("document.documentElement.scrollWidth") <= width
        # What is wider than the window scrolls in its own box.
        found = "[...document.querySelectorAll('main > *, figure, .scroll, pre, p, li, svg, summary')]"
        right = f"{found}.filter(e => !e.closest('.wide')).map(e => e.getBoundingClientRect().right)"
        assert window.value(f"Math.max(...{right})") <= width
    assert [url for url in window.requests() if not url.startswith("data:")] == [path.as_uri()]
    assert window.complaints() == []
    # Pictures have the size to be read, and stand beside each other where there is room.
    widths = window.value("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width)")
    assert min(widths) >= (300 if width == 390 else 330)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_dark_and_light_differ_and_pictures_lie_on_a_light_card(home, window, command):
    def brightness(selector):
        colour = window.value(f"getComputedStyle(document.querySelector('{selector}')).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(",")) / 3

    window.open(home / command / PAGE, 390)
    assert brightness("body") > 240
    window.open(home / command / PAGE, 390, dark=True)
    assert brightness("body") < 40
    assert brightness(".card") > 220


@pytest.mark.slow
def test_what_is_in_a_name_does_nothing(home, window):
    window.open(home / "diagnose" / PAGE, 390)
    assert window.value("document.querySelectorAll('b, script').length") == 0
    shown = window.value("document.querySelector('.subject').textContent")
    assert NAME.replace("\u202e", r"\u202e") in shown


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_the_command_of_a_page_gives_the_same_result(home, monkeypatch):
    monkeypatch.chdir(home)
    read = Page((home / "simulate" / PAGE).read_text())
    (line,) = [text for text in read.texts if text.startswith("dyncollapse simulate -")]
    again = json.loads(call(*shlex.split(line)[1:], "--json"))
    before = json.loads((home / "simulate" / "run.json").read_text())
    assert again["verdict"] == before["verdict"]
    read = Page((home / "sweep" / PAGE).read_text())
    (line,) = [text for text in read.texts if text.startswith("dyncollapse sweep -")]
    assert json.loads(call(*shlex.split(line)[1:], "--workers", 1, "--json"))["points"] == 6


@pytest.mark.parametrize("command", ["simulate", "sweep --out x", "diagnose z.npy", "predict --data digits"])
def test_two_results_cannot_share_stdout(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*command.split(), "--json", "--html"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("dyncollapse: --json and --html cannot share stdout; choose one")
    assert not list(tmp_path.iterdir())


def test_a_plan_is_no_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["sweep", "--out", "x", "--dry-run", "--html"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--dry-run" in result.stderr


def test_commands_of_pages_are_quoted():
    assert shlex.split(command_line("diagnose", NAME.replace("\u202e", "")))[2] == NAME.replace("\u202e", "")
