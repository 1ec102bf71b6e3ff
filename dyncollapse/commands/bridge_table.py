"""Run `dyncollapse bridge table`: runs beside the paper's tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dyncollapse.bridge.evaluation.paper_tables import as_markdown, as_number, as_top1, compare
from dyncollapse.bridge.training.run_folder import find_runs
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import fail, note, say

SHORT = {"strong-augmentation": "augm.", "implicit-regularization": "regul."}  # what fits into the last column
WIDTH_OF_ALL = 110  # columns of the whole table; on fewer, ranks and verdicts are left to --json


def table(folders: tuple[Path, ...], markdown: bool, as_json: bool) -> None:
    """Compare runs with the paper's tables, and print the comparison."""
    if markdown and as_json:
        fail(2, "--markdown and --json cannot share stdout; choose one")
    with refusals():
        compared = compare(find_runs(folders, note))
    if as_json:
        click.echo(json.dumps(compared, allow_nan=False))
    if markdown:
        for line in as_markdown(compared["rows"]).splitlines():
            say(line, err=False)
    print_table(compared, to_stderr=as_json or markdown)


def print_table(compared: Mapping[str, Any], *, to_stderr: bool) -> None:
    """Print the result of `compare`: runs beside the paper's Tables 1 and 2, and what differs."""
    console = open_console(to_stderr)
    wide = console.width >= WIDTH_OF_ALL
    more = ("RankMe r", "erank r", "erank z", "collapsed r", "by") if wide else ()
    lines = open_table("projector", "paper", "top-1 here", "seeds", "outputs", *more, left=1)
    for row in compared["rows"]:
        cells = [row["row"] + ("" if row["finished"] else " (unfinished)"), as_top1(row["paper_top1"])]
        cells += [as_top1(row["top1"], row["top1_spread"]), str(len(row["seeds"])), str(row["embedding_dim"])]
        lines.add_row(*cells, *(_ranks(row) if wide else ()))
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            lines.add_row("  probed on the sub-vector", as_top1(row["paper_subvector_top1"]), top1)
    console.print(lines)
    titles = {"differences": "Unlike the paper", "contradictions": "Against the paper", "unfinished": "Unfinished"}
    for name, title in titles.items():
        for line in compared[name]:
            console.print(f"{title}: {line}", soft_wrap=True)


def _ranks(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row for ranks, collapsed dimensions and mechanisms."""
    ranks = ("representation_rankme", "representation_effective_rank", "embedding_effective_rank")
    collapsed = row["collapsed"]
    mechanisms = (row["mechanism"] or "none").split("/")
    return [
        *(as_number(row[name]) for name in ranks),
        "-" if collapsed is None else f"{collapsed:.3g} of {row['representation_dim']}",
        "/".join(SHORT.get(name, name) for name in mechanisms if name != "none" or mechanisms == ["none"]),
    ]
