"""Run `dyncollapse verify`: the paper's claims as measured checks."""

import json
import textwrap
from collections.abc import Sequence

import click

from dyncollapse.claims import CLAIMS, Checked, as_values, run_check
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import fail, use_machine
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import did_you_mean


def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the claims of these names, or all, and print what each one measured."""
    known = {claim.name: claim for claim in CLAIMS}
    if unknown := [name for name in names if name not in known]:
        told = did_you_mean(unknown[0], known, f"the claims are {', '.join(known)}")
        if "," in unknown[0]:
            told = "give one claim per --claim, which is repeatable"
        fail(2, f"--claim is {', '.join(unknown)}; {told}")
    use_machine("cpu", 1)  # sums in one order on every machine; small matrices gain nothing from threads
    chosen, checked = [known[name] for name in dict.fromkeys(names)] or list(CLAIMS), list[Checked]()
    try:
        with progress_bars(("claims",)) as progress:
            for done, claim in enumerate(chosen, 1):
                checked.append(run_check(claim))
                progress("claims", done, len(chosen))
    except KeyboardInterrupt:
        print_claims(checked, to_stderr=True)
        fail(130, f"Interrupted after {len(checked)} of {len(chosen)} claims.")
    if as_json:
        click.echo(json.dumps({"claims": [as_values(result) for result in checked]}, allow_nan=False))
    print_claims(checked, to_stderr=as_json)
    if names:
        print_explanation(checked, to_stderr=as_json)
    if surprising := [result for result in checked if result.surprising]:
        fail(1, f"unlike expected: {', '.join(result.claim.name for result in surprising)}")


def print_claims(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print a row per claim: what was measured, its bound, whether it holds and whether that is expected."""
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
    unexpected = sum(result.surprising for result in checked)
    failing = [result.claim.name for result in checked if not (result.holds or result.surprising)]
    console.print(
        f"{len(checked) - unexpected} of {len(checked)} claims behave as expected"
        + (f"; {', '.join(failing)} does not hold, as expected" if failing else "")
        + ".",
        style="bold",
        soft_wrap=True,
    )


def print_explanation(checked: Sequence[Checked], *, to_stderr: bool) -> None:
    """Print each claim: its statement, what is measured, and the reason for the bound."""
    console = open_console(to_stderr)
    for result in checked:
        claim = result.claim
        console.print()
        texts = (claim.statement, f"Measured: {claim.quantity}. {claim.explanation}")
        for text in (f"{claim.name} ({claim.source})", *texts):
            console.print(*textwrap.wrap(text, 100), sep="\n")
