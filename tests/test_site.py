"""The documents' site builds without a warning, shows every public name and command, and asks for nothing elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dyncollapse
import dyncollapse.bridge
from dyncollapse.commands.bridge import bridge
from dyncollapse.commands.main import main

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def test_every_public_name_has_its_docstring_in_the_reference(site):
    headings = {name for page in site.values() for name in re.findall(r'<h2 id="dyncollapse\.[\w.]*?(\w+)"', page)}
    assert set(dyncollapse.__all__) | set(dyncollapse.bridge.__all__) == headings


def test_every_command_has_its_options_in_the_reference(site):
    page = site["reference/commands.html"]
    commands = [*(set(main.commands) - {"bridge"}), *(f"bridge {name}" for name in bridge.commands)]
    assert all(f">dyncollapse {name}<" in page for name in commands)
    assert "--aug-strength" in page


def test_examples_are_set_as_code(site):
    page = site["reference/theory.html"]
    assert page.count("&gt;&gt;&gt; ") > 20 or page.count('class="gp"') > 20


def test_mathematics_is_drawn_and_none_is_left_as_text(site):
    assert site["explanation/theory.html"].count("<math") > 100
    assert not [name for name, page in site.items() if "arithmatex" in page or "<merror" in page]


def test_pages_ask_for_nothing_elsewhere(site):
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]* src="(https?:)?//|<link[^>]* rel="(?:stylesheet|preload)"[^>]*https?://'
    )
    assert not [name for name, page in site.items() if loads.search(page)]


def test_links_of_the_pages_lead_to_pages_and_headings(site):
    ids = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in site.items()}
    for name, page in site.items():
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page):
            if "://" in link or link.startswith(("mailto:", "/")):
                continue
            path, _, heading = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            if target.endswith(".html"):
                assert target in ids, (name, link)
                assert not heading or heading in ids[target], (name, link)


def test_no_list_and_no_table_is_left_as_text(site):
    """As where the blank line before it is missing, which other renderers do without."""
    left = re.compile(r"(?:^|\n) *(?:[-*+]|\d+\.) |\n *\||```")
    paragraphs = {name: re.findall(r"(?s)<p>(.*?)</p>", page) for name, page in site.items()}
    assert sum(map(len, paragraphs.values())) > 500
    assert not [(name, text[:80]) for name, texts in paragraphs.items() for text in texts if left.search(text)]
