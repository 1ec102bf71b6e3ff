"""Fenced blocks of a document, run in order in one folder, and their output compared with what the document shows."""

import contextlib
import io
import itertools
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
# The blocks of this page measure speeds, for minutes.
MEASURED = "docs/results.md"
SPREAD = re.compile(rf"± {NUMBER.pattern}")
ANYTHING = "..."


def pages() -> dict[str, str]:
    """Name and text of every document."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def pages_that_run() -> list[str]:
    """Names of the documents with blocks of Python or of the console, except the one that measures for minutes."""
    shown = {name: {block.language for block in blocks(text)} for name, text in pages().items()}
    return [name for name, languages in shown.items() if name != MEASURED and {"python", "console"} & languages]


@dataclass(frozen=True)
class Block:
    """One fenced block: the language after its fence, its text, and where that text starts in the document."""

    language: str
    text: str
    start: int
    line: int


@dataclass(frozen=True)
class Output:
    """What a command or a block of Python printed, and where the document shows it."""

    printed: str
    start: int
    end: int
    where: str


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a Markdown document, in order, without those that are recorded elsewhere."""
    found = []
    for match in FENCE.finditer(document):
        recorded, indent, language, text = match.groups()
        if not recorded:
            text = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
            found.append(Block(language, text, match.start(4), document[: match.start(4)].count("\n")))
    return found


def outputs(document: str, name: str, scope: dict[str, object]) -> Iterator[Output]:
    """Run the Python and console blocks of a page in order, in the current folder and one namespace, `scope`.

    A `text` block right after a `python` block is what that block prints. A `console` block holds commands after `$ `,
    each followed by what it prints, or by nothing where the output does not matter.
    """
    printed = None
    for block in blocks(document):
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * block.line + block.text, name, "exec"), scope)
            continue
        if block.language == "text" and printed is not None:
            yield Output(printed.getvalue(), block.start, block.start + len(block.text), f"{name}:{block.line}")
        elif block.language == "console":
            for command, start, end in commands(block.text):
                shown = _run_command(command, f"{name}:{block.line}")
                if shown is not None and block.text[start:end].strip():
                    yield Output(shown, block.start + start, block.start + end, f"{name}:{block.line}: {command}")
        printed = None


def run_page(document: str, name: str) -> dict[str, object]:
    """Run a page, compare what it prints with what it shows, and return its namespace."""
    scope: dict[str, object] = {"__name__": "page"}
    for output in outputs(document, name, scope):
        compare(output.printed, document[output.start : output.end], output.where)
    return scope


def replayed(document: str, name: str) -> str:
    """Run a page, and write what it prints where it shows the whole of an output."""
    for output in reversed(list(outputs(document, name, {"__name__": "page"}))):
        shown = document[output.start : output.end]
        try:
            compare(output.printed, shown, output.where)
        except AssertionError:
            if ANYTHING not in [line.strip() for line in shown.splitlines()]:
                lines = [line.rstrip() for line in output.printed.rstrip().splitlines()]
                document = document[: output.start] + "\n".join([*lines, ""]) + document[output.end :]
    return document


def commands(console: str) -> Iterator[tuple[str, int, int]]:
    """Each command of a console block, continued lines joined, and where its output starts and ends."""
    starts = [match.start() for match in re.finditer(r"^\$ ", console, flags=re.MULTILINE)]
    for start, end in itertools.pairwise([*starts, len(console)]):
        line = re.match(r"\$ ((?:.*\\\n)*.*)\n?", console[start:end])
        assert line is not None
        yield line[1].replace("\\\n", " "), start + line.end(), end


def _run_command(command: str, where: str) -> str | None:
    words = shlex.split(command, comments=True)
    if words[0] in {"make", "git", "cd", "pip"} or words[0].endswith(("/pip", "/python")):
        return None  # tests/test_readme.py checks targets; tests/test_figures.py runs the scripts
    assert words[0] in {"dyncollapse", ".venv/bin/dyncollapse"}, f"{where}: {command}"
    result = CliRunner(env={"COLUMNS": "120"}).invoke(main, words[1:])
    assert result.exit_code == 0, f"{where}: {command}: {result.output}"
    return result.stdout


def compare(printed: str, shown: str, where: str) -> None:
    """Assert that lines agree word by word, numbers to 15 %; a line of three dots stands for any lines."""
    lines, wanted = _untimed(printed), _untimed(shown)
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


def _untimed(text: str) -> list[str]:
    """The lines of an output, without the column of seconds that ends some tables."""
    lines = text.rstrip().splitlines()
    if lines and lines[0].endswith(" seconds"):
        return [re.sub(r" \d+\.\d$", "", line).rstrip() for line in lines]
    return lines


def same(line: str, shown: str) -> bool:
    """Whether two lines have the same words, the same counts, and the same measured numbers up to 15 % or 0.01.

    Processors round differently, and SGD amplifies it. Spreads over a few runs, after a plus-minus sign, may differ.
    """
    if line.split() == shown.split():
        return True
    line, shown = SPREAD.sub("±", line), SPREAD.sub("±", shown)
    if NUMBER.sub("#", line).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(NUMBER.findall(line), NUMBER.findall(shown), strict=True)
    return all(_agree(a, b) for a, b in pairs)


def _agree(printed: str, shown: str) -> bool:
    a, b = float(printed), float(shown)
    if printed.isdecimal() and shown.isdecimal() and max(a, b) < 1000:
        return a == b
    return abs(a - b) <= max(0.01, 0.15 * max(abs(a), abs(b)))
