"""Fenced blocks of a document, run in order in one folder, and their output compared with what the document shows."""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from dyncollapse.commands.main import main

ROOT = Path(__file__).parent.parent.parent
# A block below `<!-- code NAME -->` takes minutes: `make results` runs it and records what it prints (tests/quotes.py).
FENCE = re.compile(r"( *<!-- code \S+ -->\n)?^( *)```(\w+)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
ANYTHING = "..."


@dataclass(frozen=True)
class Block:
    """One fenced block: the language after its fence, its text, and where it starts."""

    language: str
    text: str
    line: int


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a Markdown document, in order, without those that are recorded elsewhere."""
    found = []
    for match in FENCE.finditer(document):
        recorded, indent, language, text = match.groups()
        if not recorded:
            text = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
            found.append(Block(language, text, document[: match.start(2)].count("\n") + 1))
    return found


def run_page(document: str, name: str) -> None:
    """Run the Python and console blocks of a page in order, in the current folder and one namespace.

    A `text` block right after a `python` block is what that block prints. A `console` block holds commands after `$ `,
    each followed by what it prints, or by nothing where the output does not matter.
    """
    scope: dict[str, object] = {"__name__": "page"}
    printed = None
    for block in blocks(document):
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * block.line + block.text, name, "exec"), scope)
            continue
        if block.language == "text" and printed is not None:
            compare(printed.getvalue(), block.text, f"{name}:{block.line}")
        elif block.language == "console":
            for command, shown in commands(block.text):
                _run_command(command, shown, f"{name}:{block.line}")
        printed = None


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, continued lines joined, with the output shown below it."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, shown = part.replace("\\\n", " ").partition("\n")
        yield command, shown


def _run_command(command: str, shown: str, where: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] in {"make", "git", "cd", "pip"} or words[0].endswith(("/pip", "/python")):
        return  # tests/test_readme.py checks targets; tests/test_figures.py runs the scripts
    assert words[0] in {"dyncollapse", ".venv/bin/dyncollapse"}, f"{where}: {command}"
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, words[1:])
    assert result.exit_code == 0, f"{where}: {command}: {result.output}"
    if shown.strip():
        compare(result.stdout, shown, f"{where}: {command}")


def compare(printed: str, shown: str, where: str) -> None:
    """Assert that lines agree word by word, numbers to 15 %; a line of three dots stands for any lines."""
    lines, wanted = printed.rstrip().splitlines(), shown.rstrip().splitlines()
    at = 0
    for number, line in enumerate(wanted):
        if line.strip() == ANYTHING:
            rest = [later for later in wanted[number + 1 :] if later.strip() != ANYTHING]
            if not rest:
                return
            while at < len(lines) and not same(lines[at], rest[0]):
                at += 1
            continue
        assert at < len(lines), f"{where} does not print: {line}"
        assert same(lines[at], line), f"{where} prints\n{lines[at]}\ninstead of\n{line}"
        at += 1
    assert at == len(lines), f"{where} also prints: {os.linesep.join(lines[at:])}"


def same(line: str, shown: str) -> bool:
    """Whether two lines have the same words and, up to 15 %, the same numbers."""
    if line.split() == shown.split():
        return True
    if NUMBER.sub("#", line).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(line), NUMBER.findall(shown), strict=True)
    return all(abs(float(a) - float(b)) <= 0.15 * max(abs(float(a)), abs(float(b))) for a, b in pairs)
