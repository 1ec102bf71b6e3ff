"""Run `dyncollapse bridge table`: runs beside the paper's tables."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dyncollapse.bridge.evaluation.associations import Association
from dyncollapse.bridge.evaluation.orders import Order
from dyncollapse.bridge.evaluation.paper_rows import ROWS, SUBVECTOR
from dyncollapse.bridge.evaluation.paper_tables import (
    as_markdown,
    as_number,
    as_top1,
    compare,
    seeds_in_words,
)
from dyncollapse.bridge.training.run_folder import find_runs
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import fail, note, say

SHORT = {"strong-augmentation": "augm.", "implicit-regularization": "regul."}  # what fits into the last column
WIDTH_OF_ALL = 110  # columns of the whole table; on fewer, ranks and verdicts follow in a table of their own
SHORT_NAMES = {row.name: row.short for row in (*ROWS, SUBVECTOR)}
ORDERS = (
    "Orders of the paper, between rows of the same settings. here: difference of top-1 and its 95 % interval for",
    "this pair alone, from which the verdict follows (t test over seeds, paired where both rows have them).",
    "p: for all pairs together (Holm). seen: the smallest difference that these seeds show with 80 % power.",
)
ASSOCIATIONS = (
    "What went with top-1 here, which is no cause: Spearman's rank correlation with its 95 % interval. Runs",
    "of one row are alike, so that the interval over runs is too narrow; the one over rows is not.",
)


def table(folders: tuple[Path, ...], markdown: bool, as_json: bool) -> None:
    """Compare runs with the paper's tables, and print the comparison."""
    if markdown and as_json:
        fail(2, "--markdown and --json cannot share stdout; choose one")
    with refusals():
        compared = compare(find_runs(folders, note))
    if as_json:
        click.echo(json.dumps(compared, allow_nan=False))
    if markdown:
        for line in as_markdown(compared).splitlines():
            say(line, err=False)
    print_table(compared, to_stderr=as_json or markdown)


def print_table(compared: Mapping[str, Any], *, to_stderr: bool) -> None:
    """Print the result of `compare`: runs beside the paper's Tables 1 and 2, and what differs."""
    console = open_console(to_stderr)
    for lines in _rows(compared["rows"], wide=console.width >= WIDTH_OF_ALL):
        console.print(lines)
    _print_orders(console, compared["orders"])
    if compared["associations"]:
        _print_under(console, ASSOCIATIONS, _associations(compared["associations"]))
    titles = {"differences": "Unlike the paper", "contradictions": "Against the paper", "unfinished": "Unfinished"}
    for name, title in titles.items():
        for line in compared[name]:
            console.print(f"{title}: {line}", soft_wrap=True)


def _rows(rows: Sequence[Mapping[str, Any]], *, wide: bool) -> list[Table]:
    """The runs beside the paper's rows: one table, or two where the screen is narrow."""
    first, second = ("paper", "top-1 here", "seeds", "outputs"), ("RankMe r", "erank r", "erank z", "collapsed r", "by")
    tables = [_open(*first, *second)] if wide else [_open(*first), _open(*second)]
    for row in rows:
        name = row["row"] + ("" if row["finished"] else " (unfinished)")
        accuracies = [as_top1(row["paper_top1"]), as_top1(row["top1"], row["top1_spread"])]
        accuracies += [str(len(row["seeds"])), str(row["embedding_dim"])]
        if wide:
            tables[0].add_row(name, *accuracies, *_ranks(row))
        else:
            tables[0].add_row(name, *accuracies)
            tables[1].add_row(name, *_ranks(row))
        if row["subvector_top1"] is not None:
            top1 = as_top1(row["subvector_top1"], row["subvector_spread"])
            tables[0].add_row("  probed on the sub-vector", as_top1(row["paper_subvector_top1"]), top1)
    return tables


def _open(*columns: str, first: str = "projector") -> Table:
    """A table whose first column has words, which go over several lines where the screen is narrow."""
    opened = open_table(first, *columns, left=1)
    opened.columns[0].no_wrap = False
    return opened


def _print_orders(console: Console, orders: Sequence[Order]) -> None:
    """Print the pairs of rows, setting by setting, and why some could not be tested."""
    if not orders:
        return
    tables = []
    for setting, pairs in groupby(orders, key=lambda order: order["setting"]):
        lines = _open("paper", "here", "seeds", "p", "seen", "verdict", first=setting or "better > worse")
        for order in pairs:
            interval = order["interval"]
            half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.1f}"
            lines.add_row(
                f"{SHORT_NAMES[order['better']]} > {SHORT_NAMES[order['worse']]}",
                f"{order['paper']:+.1f}",
                f"{order['difference']:+.1f}{half}",
                seeds_in_words(order),
                _p(order["p_holm"]),
                as_top1(order["detectable"]),
                order["verdict"],
            )
        tables.append(lines)
    _print_under(console, ORDERS, *tables)
    for reason in sorted({order["reason"] for order in orders} - {""}):
        count = sum(order["reason"] == reason for order in orders)
        console.print(f"Undecided: {reason} ({count} of {len(orders)} pairs)", soft_wrap=True)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _print_under(console: Console, title: Sequence[str], *tables: Table) -> None:
    """Print tables under a title, between empty lines."""
    console.print()
    console.print(" ".join(title))
    for lines in tables:
        console.print(lines)
    console.print()


def _associations(associations: Sequence[Association]) -> Table:
    """The rank correlation of top-1 with each measure, over runs and over rows."""
    lines = _open("runs", "correlation", "rows", "correlation", first="measure")
    for one in associations:
        lines.add_row(
            one["measure"],
            str(one["runs"]),
            _correlation(one["spearman"], one["interval"]),
            str(one["rows"]),
            _correlation(one["rows_spearman"], one["rows_interval"]),
        )
    return lines


def _correlation(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.2f}" + ("" if interval is None else f" ({interval[0]:+.2f}, {interval[1]:+.2f})")


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
