"""Run `dyncollapse verify`: the paper's claims as measured checks."""

import json
import textwrap
from collections.abc import Sequence

import click

from dyncollapse.claims import Checked
from dyncollapse.claims.result import VerifyResult
from dyncollapse.claims.run import check_claims, chosen_claims, claim_workers, in_order
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import bad_input, fail, use_machine
from dyncollapse.runtime.progress import progress_bars


def verify(claim: tuple[str, ...], workers: int | None, as_json: bool) -> None:
    """Check the claims of these names, or all, and print what each one measured."""
    checked = list[Checked]()
    with bad_input():
        chosen = chosen_claims(claim)
        use_machine("cpu", 1, workers or 0)  # sums in one order everywhere; small matrices gain nothing from threads
        processes = claim_workers(chosen, workers, named=bool(claim))
    try:
        with progress_bars(("claims",)) as progress, bad_input():
            for one in check_claims(chosen, processes):
                checked.append(one)
                progress("claims", len(checked), len(chosen))
    except KeyboardInterrupt:
        print_claims(VerifyResult(in_order(checked, chosen)), to_stderr=True)
        fail(130, f"Interrupted after {len(checked)} of {len(chosen)} claims.")
    result = VerifyResult(in_order(checked, chosen))
    if as_json:
        click.echo(json.dumps(result.to_dict(), allow_nan=False))
    print_claims(result, to_stderr=as_json)
    if claim:
        print_explanation(result.checked, to_stderr=as_json)
    if result.failed:
        fail(1, f"unlike expected: {', '.join(result.failed)}")


def print_claims(found: VerifyResult, *, to_stderr: bool) -> None:
    """Print a row per claim: what was measured, its bound, whether it holds and whether that is expected."""
    checked = found.checked
    if not checked:
        return
    table = open_table("claim", "source", "measured", "", "bound", "holds", "as expected", "seconds", left=2)
    for result in checked:
        claim, measured = result.claim, result.measured
        numbers = ("error", "", "")
        if measured is not None:
            numbers = (f"{measured.value:.3g}", measured.relation, f"{measured.bound:.3g}")
        verdicts = ("yes" if result.holds else "no", "NO" if result.surprising else "yes")
        style = "red" if result.surprising else None
        source = claim.source.split(" (")[0]
        table.add_row(claim.name, source, *numbers, *verdicts, f"{result.seconds:.1f}", style=style)
    console = open_console(to_stderr)
    console.print(table)
    for result in checked:
        if result.error:
            console.print(f"{result.claim.name}: {result.error}", style="red", soft_wrap=True)
    console.print(found.sentence, style="bold", soft_wrap=True)


def print_explanation(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print each claim: its statement, what is measured, and the reason for the bound."""
    console = open_console(to_stderr)
    for result in checked:
        claim = result.claim
        console.print()
        texts = (claim.statement, f"Measured: {claim.quantity}. {claim.explanation}")
        for text in (f"{claim.name} ({claim.source})", *texts):
            console.print(*textwrap.wrap(text, 100), sep="\n")
