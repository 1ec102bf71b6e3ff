"""The table of classes that `dyncollapse diagnose --by` prints."""

from dyncollapse.commands.console import open_console, open_table
from dyncollapse.diagnostics.by_labels import ClassReports
from dyncollapse.runtime.files import printable

MOST_ROWS = 40  # classes on a terminal


def print_classes(reports: ClassReports, *, to_stderr: bool) -> None:
    """Print a row per class; of many classes those with the most collapsed dimensions.

    Args:
        reports: The reports within the classes.
        to_stderr: Print on stderr, not on stdout.
    """
    console, rows = open_console(to_stderr), reports.rows()
    table = open_table("class", "samples", "collapsed", "effective rank", "mechanism", left=1)
    shown = rows
    if len(rows) > MOST_ROWS:
        shown = sorted(rows, key=lambda row: row["collapsed"] or 0, reverse=True)[:MOST_ROWS]
    for row in shown:
        rank, collapsed = row["effective_rank"], row["collapsed"]
        table.add_row(
            printable(str(row["class"])),
            str(row["samples"]),
            "-" if collapsed is None else f"{collapsed} of {reports.whole.dim}",
            "-" if rank is None else f"{rank:.4g}",
            row["mechanism"],
        )
    console.print()
    console.print(table)
    if left := len(rows) - len(shown):
        console.print(f"and {left} classes with no more collapsed dimensions than these", soft_wrap=True)
    console.print(reports.sentence, style="bold", soft_wrap=True)
