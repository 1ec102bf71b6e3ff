"""Run `dyncollapse collect`: the results of a sweep as one table."""

import sys
from pathlib import Path

from dyncollapse.commands.shared import bad_input, fail, say
from dyncollapse.commands.sweep import print_failures
from dyncollapse.runtime.folders import DISK
from dyncollapse.sweeps.sweep import Sweep
from dyncollapse.sweeps.tables import check_table, write_csv, write_table


def collect(folder: Path, out: Path | None) -> None:
    """Print the results of a sweep as CSV, or save them as one table."""
    with bad_input():
        if out is not None:
            check_table(out)
        sweep = Sweep.open(folder)
        reports, broken = sweep.reports()
        rows = sweep.table(reports)
    if out is None:
        if sys.stdout is None:
            fail(1, "standard output is closed; name a file with --out")
        write_csv(rows, sys.stdout)
    else:
        try:
            write_table(rows, out)
        except OSError as error:
            fail(1 if error.errno in DISK else 2, f"--out {out} could not be written ({error.strerror})")
        say(f"{len(rows)} points in {out}", err=True)
    for problem in broken.values():
        say(f"{problem}; the next sweep runs it again", err=True)
    print_failures(sweep, {name: text for name, text in sweep.failures().items() if name not in reports})
    if missing := len(sweep.points) - len(rows):
        say(f"{missing} of {len(sweep.points)} points are not finished; the sweep's command continues it", err=True)
