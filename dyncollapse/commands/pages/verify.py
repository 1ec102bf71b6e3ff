"""The page of `dyncollapse verify`."""

import click

from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_JSON, THREADS
from dyncollapse.runtime.process import cores

verify = page(
    "dyncollapse.commands.verify:verify",
    """Does the paper's theory hold?

    Measures every lemma, theorem and corollary of the paper, and every statement beyond it: a number, and the bound
    that it must respect. Theorem 2 is wrong as printed, so its check is expected to fail. The exit code is 1 if any
    claim behaves unlike expected. All claims take 20 to 25 seconds on one core.
    """,
    click.option(
        "--claim",
        multiple=True,
        metavar="NAME",
        help="Check this claim only, and explain it; repeatable.  [all claims]",
    ),
    click.option(
        "--workers",
        type=THREADS,
        help="Claims checked at a time, in processes of one core each.  [the number of cores; 1 with --claim]",
    ),
    AS_JSON,
    surplus="give a claim as --claim NAME",
    example="dyncollapse verify --claim theorem-2-as-stated",
    topics=("collapse", "rho"),
    has_workers=lambda given: not given["claim"] and (given["workers"] or cores()) > 1,
)
