"""Numbers quoted in the documents, each with the file that it comes from, and how they are brought up to date.

In README.md and docs/**/*.md a number is followed by an HTML comment, which readers do not see:

    0.0115<!--= verify threshold-one-sided measured -->   a claim in docs/measured/verify.json, measured or bound
    68<!--= verify count -->                              all claims
    57<!--= mutations count -->                           all mutations in docs/measured/mutations.json; or `caught`
    345<!--= fig03_strong_augmentation k = 1.5: (\\S+), -->   a regular expression's group in a recorded text

Recorded texts are figures/gallery/NAME.txt, the figures' captions (`make gallery`), and docs/measured/NAME.txt, what a
command or a block of Python in a document prints: `command`<!-- command NAME -->, <!-- record NAME: command --> where
it is not shown, or <!-- code NAME --> above the block.
Between `<!-- table NAME -->` and `<!-- end -->` stands a table made from a file, or from the fields of settings.

`python tests/quotes.py` measures all claims, runs these commands and blocks, writes docs/measured/ and rewrites numbers
and tables; with names, `verify` or of recorded texts, only those; with `--docs-only` it measures nothing.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutate import table as mutation_table
from mutate import write_rows
from setting_tables import PREFIX, setting_table

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs" / "measured"
CAPTIONS = ROOT / "figures" / "gallery"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
QUOTE = re.compile(rf"({NUMBER})<!--= (\S+) (.*?) -->")
TABLE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
COMMAND = re.compile(r"`([^`]+)`<!-- command (\S+) -->")
HIDDEN = re.compile(r"<!-- record (\S+): (dyncollapse [^>]*?) -->")
CODE = re.compile(r"<!-- code (\S+) -->\n *```python\n(.*?)```", re.DOTALL)


def measured(name: str) -> list[dict[str, Any]]:
    """The list in docs/measured/NAME.json."""
    (rows,) = json.loads((MEASURED / f"{name}.json").read_text()).values()
    return rows


def value(source: str, where: str) -> float:
    """What a quote's number has to be. Raises KeyError, ValueError or OSError for a source that does not hold it."""
    if source == "verify":
        claims = {claim["name"]: claim for claim in measured("verify")}
        if where == "count":
            return float(len(claims))
        name, key = where.split()
        return float(claims[name][key])
    if source == "mutations":
        found = measured("mutations")
        return float({"count": len(found), "caught": sum(bool(one["caught"]) for one in found)}[where])
    folder = MEASURED if (MEASURED / f"{source}.txt").exists() else CAPTIONS
    text = " ".join((folder / f"{source}.txt").read_text().split())
    if not (match := re.search(where, text)):
        raise ValueError(f"the text {source} holds nothing like {where!r}")
    return float(match[1])


def restated(number: float, quoted: str) -> str:
    """Write a number as another is quoted: to whole numbers, or with as many significant digits."""
    if quoted.lstrip("-").isdecimal():
        return f"{number:.0f}"
    return written(number, max(1, len(quoted.split("e")[0].replace(".", "").lstrip("-0"))))


def written(number: float, digits: int) -> str:
    """Write a number with so many significant digits, more only where they stand before the point."""
    if number == 0:
        return "0"
    rounded = float(f"{number:.{digits - 1}e}")
    if not 1e-4 <= abs(rounded) < 1e6:
        mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def table(name: str) -> str:
    """The lines of a generated table."""
    if name.startswith(PREFIX):
        return setting_table(name)
    if name == "mutations":
        return "\n".join(mutation_table(measured("mutations"))) + "\n"
    rows = ["| claim | source | what is measured | measured | | bound |", "|---|---|---|---|---|---|"]
    for claim in measured(name):
        relation = {"<=": "≤", ">=": "≥"}[claim["relation"]]
        bound = written(claim["bound"], 2) + ("" if claim["expected"] else " (does not hold, as expected)")
        quantity = claim["quantity"].replace("|", "\\|")
        cells = (f"`{claim['name']}`", claim["source"], quantity, written(claim["measured"], 2), relation, bound)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def refreshed(text: str) -> str:
    """The document with every quoted number and table as its file has it."""

    def number(match: re.Match[str]) -> str:
        quoted, source, where = match.groups()
        return f"{restated(value(source, where), quoted)}<!--= {source} {where} -->"

    text = QUOTE.sub(number, text)
    return TABLE.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def quotes(text: str) -> Iterator[tuple[str, str, str]]:
    """Number, source and place of every quote in a document."""
    return (match.groups() for match in QUOTE.finditer(text))


def recorded() -> dict[str, tuple[str, list[str]]]:
    """Of every command and block in the documents, by name: the line that heads its text, and how it is run."""
    python, found = sys.executable, {}
    for text in (document.read_text() for document in DOCUMENTS):
        shown = [(name, command) for command, name in COMMAND.findall(text)]
        for name, command in (*shown, *HIDDEN.findall(text)):
            words = shlex.split(command)
            assert words[0] == "dyncollapse", command
            found[name] = (f"$ {' '.join(command.split())}", [python, "-m", *words])
        for name, block in CODE.findall(text):
            code = textwrap.dedent(block)
            digest = hashlib.sha256(code.encode()).hexdigest()[:12]
            found[name] = (f"$ python (block {name}, sha256 {digest})", [python, "-c", code])
    return found


def record(name: str) -> None:
    """Run a command or block in an empty folder, on one thread, and keep what it prints."""
    line, arguments = recorded()[name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8"
        )
    (MEASURED / f"{name}.txt").write_text(f"{line}\n{result.stdout.strip()}\n")


def verify() -> int:
    """Measure all claims and keep them; the exit code."""
    result = subprocess.run(
        [sys.executable, "-m", "dyncollapse", "verify", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode == 0:
        claims = json.loads(result.stdout)["claims"]
        # Times are the machine's, and would change with every measurement.
        rows = [{key: field for key, field in claim.items() if key != "seconds"} for claim in claims]
        write_rows(MEASURED / "verify.json", "claims", rows)
    return result.returncode


def main() -> int:
    """Measure, record and refresh; the exit code of `dyncollapse verify` where it is not 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure these only")
    parser.add_argument("--docs-only", action="store_true", help="rewrite the documents from the files that are there")
    options = parser.parse_args()
    names = [] if options.docs_only else options.names or ["verify", *recorded()]
    for name in names:
        print(f"measuring {name}", flush=True)
        if name != "verify":
            record(name)
        elif code := verify():
            return code
    for document in DOCUMENTS:
        before = document.read_text()
        if (after := refreshed(before)) != before:
            document.write_text(after)
            print(f"{document.relative_to(ROOT)} is brought up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
