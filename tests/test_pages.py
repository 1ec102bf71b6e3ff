"""Every block of Python and of the console in the documents runs, and prints what the page shows."""

import ast
import re
import shlex

import click
import pytest
from helpers.pages import (
    MEASURED,
    blocks,
    commands,
    compare,
    pages,
    pages_that_run,
    replayed,
    run_page,
    same,
)

from dyncollapse.commands.main import main

PAGES = pages()
PARSED = [
    pytest.param(line, id=f"{name}:{line}"[:90])
    for name, text in PAGES.items()
    for block in blocks(text)
    if block.language == "sh"
    for line in block.text.replace("\\\n", " ").splitlines()
    if re.search(r"(?:^|/| -m )dyncollapse[ .]", line)
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own call of PyTorch
@pytest.mark.filterwarnings("ignore:.*(does not have many workers|smaller than the logging interval)")
@pytest.mark.usefixtures("sketched")  # pages show what is printed
@pytest.mark.parametrize("name", pages_that_run())
def test_page_runs_and_prints_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PAGES[name], name)


@pytest.mark.parametrize("block", [b for b in blocks(PAGES[MEASURED]) if b.language == "python"], ids=lambda b: b.line)
def test_block_that_measures_can_be_read_and_finds_its_imports(block):
    tree = ast.parse(block.text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(imports, []), MEASURED, "exec"), {})


@pytest.mark.parametrize("line", PARSED)
def test_commands_that_are_only_shown_have_these_options(line):
    words = shlex.split(re.split(r"dyncollapse[ .]", line, maxsplit=1)[1], comments=True)
    context, command = click.Context(main, info_name="dyncollapse"), main
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None, line
        context = click.Context(command, parent=context)
    words = [word for word in words if word != "$resume"]
    _, left, _ = command.make_parser(context).parse_args(words)
    takes = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    assert takes or not left, line


def test_page_is_refused_where_it_prints_something_else():
    run_page("```python\nprint(1.0, 'a')\n```\n\n```text\n1.1 a\n```\n", "page")
    for shown in ("1.3 a", "1.0 b", "1.0", "1.0 a\nmore"):
        with pytest.raises(AssertionError, match="page"):
            run_page(f"```python\nprint(1.0, 'a')\n```\n\n```text\n{shown}\n```\n", "page")
    with pytest.raises(AssertionError, match="nonsense"):
        run_page("```console\n$ dyncollapse nonsense\n```\n", "page")


def test_three_dots_stand_for_any_lines():
    compare("a\nb\nc 2\n", "a\n...\nc 2", "here")
    compare("a\nb\nc\n", "a\n...\n", "here")
    with pytest.raises(AssertionError):
        compare("a\nb\nc\n", "a\n...\nd", "here")
    assert same("took 1.00 s", "took 1.1 s")
    assert same("3.62 ± 0.02 dead", "3.5 ± 0.5 dead")
    assert not same("took 1.00 s", "takes 1.00 s")
    assert not same("8 of 16", "7 of 16")


def test_commands_are_read_with_their_output():
    text = "$ a b \\\n  c\nout\n$ d\n"
    assert [(command, text[start:end]) for command, start, end in commands(text)] == [("a b    c", "out\n"), ("d", "")]


def test_shown_output_is_rewritten_only_where_it_is_another():
    page = "```python\nprint(1.0, 'a')\n```\n\n```text\n{}\n```\nEnd\n"
    assert replayed(page.format("1.3 a"), "page") == page.format("1.0 a")
    for kept in ("1.01 a", "..."):
        assert replayed(page.format(kept), "page") == page.format(kept)
