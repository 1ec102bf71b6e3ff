"""Keep the records of finished runs as data: `python tests/keep_runs.py docs/data/cifar10 RUN...`.

Copies settings, logs, probes and diagnosis of each run, without checkpoints. Numbers are rounded to 6 digits, and the
folder of the images is replaced by `--data`, so that the records are small and name no machine's paths. Then the
tables of all kept runs in docs/results.md are written again; the sentences below them are not.
"""

import json
import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from dyncollapse.bridge import compare, find_runs
from dyncollapse.bridge.evaluation.paper_tables import as_markdown

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
TABLES = r"(bridge table docs/data/{} --markdown` prints:\n\n)(?:\|.*\n|\n(?=\|))+"
WHOLE = ("config.json", "probes.json", "diagnosis.json")
LINES = ("log.jsonl", "monitor.jsonl")
DIGITS = 6


def main() -> None:
    """Copy the runs that are named on the command line."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to keep them; each run gets a folder of its own name")
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    parser.add_argument("--data", default="cifar10", help="name of the images (default: cifar10)")
    arguments = parser.parse_args()
    for run in arguments.runs:
        keep(run, arguments.folder / run.name, arguments.data)
        sys.stdout.write(f"{arguments.folder / run.name}\n")
    PAGE.write_text(refreshed(PAGE.read_text(), arguments.folder))


def keep(run: Path, folder: Path, data: str) -> None:
    """Copy the records of one run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WHOLE:
        if (run / name).exists():
            content = rounded(json.loads((run / name).read_text()))
            if name == "config.json":
                content["recipe"]["data"] = content["facts"]["data"] = data
            (folder / name).write_text(json.dumps(content) + "\n")
    for name in LINES:
        if (run / name).exists():
            lines = [rounded(json.loads(line)) for line in (run / name).read_text().splitlines()]
            (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def refreshed(page: str, folder: Path) -> str:
    """The page with the tables that `bridge table` prints of a folder in docs/data."""
    tables = as_markdown(compare(find_runs([folder]))).rstrip("\n")
    return re.sub(TABLES.format(folder.name), lambda lead: f"{lead[1]}{tables}\n", page, count=1)


def rounded(value: Any) -> Any:
    """The value with its floats rounded to DIGITS digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
