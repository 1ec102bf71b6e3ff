"""Rewrite the output that documents show: `python tests/show_output.py [FILE ...]`, all pages unless some are given.

Runs every page as tests/test_pages.py does, in an empty folder, and writes what each command and block of Python prints
below it. A block that shows part of an output, with a line of three dots, is left as it is.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

from helpers.pages import ROOT, pages_that_run, replayed


def refresh(page: Path) -> bool:
    """Rewrite one page's output; whether anything changed."""
    before = page.read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        after = replayed(before, page.name)
    if after != before:
        page.write_text(after)
    return after != before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rewrite the output that documents show.")
    parser.add_argument("pages", nargs="*", type=Path, default=[ROOT / name for name in pages_that_run()])
    os.environ["OMP_NUM_THREADS"] = "1"
    for path in [page.resolve() for page in parser.parse_args().pages]:
        print(path.relative_to(ROOT), "rewritten" if refresh(path) else "unchanged")
