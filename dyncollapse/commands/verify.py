"""Run `dyncollapse verify`: the paper's claims as measured checks."""

import json
import textwrap
from collections.abc import Sequence

import click

from dyncollapse.claims import CLAIMS, Checked, Claim, as_values
from dyncollapse.claims.run import check_claims
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import bad_input, fail, use_machine
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.process import cores
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import did_you_mean


def verify(names: tuple[str, ...], workers: int | None, as_json: bool) -> None:
    """Check the claims of these names, or all, and print what each one measured."""
    known = {claim.name: claim for claim in CLAIMS}
    if unknown := [name for name in names if name not in known]:
        told = did_you_mean(unknown[0], known, f"the claims are {', '.join(known)}")
        if "," in unknown[0]:
            told = "give one claim per --claim, which is repeatable"
        fail(2, f"--claim is {', '.join(unknown)}; {told}")
    chosen, checked = [known[name] for name in dict.fromkeys(names)] or list(CLAIMS), list[Checked]()
    with bad_input():
        use_machine("cpu", 1, workers or 0)  # sums in one order everywhere; small matrices gain nothing from threads
        # Processes import for seconds, and most single claims take less.
        count = min(workers or (1 if names else cores()), len(chosen))
        processes = local_workers(count) if count > 1 else None
    try:
        with progress_bars(("claims",)) as progress, bad_input():
            for result in check_claims(chosen, processes):
                checked.append(result)
                progress("claims", len(checked), len(chosen))
    except KeyboardInterrupt:
        print_claims(_in_order(checked, chosen), to_stderr=True)
        fail(130, f"Interrupted after {len(checked)} of {len(chosen)} claims.")
    checked = _in_order(checked, chosen)
    if as_json:
        click.echo(json.dumps({"claims": [as_values(result) for result in checked]}, allow_nan=False))
    print_claims(checked, to_stderr=as_json)
    if names:
        print_explanation(checked, to_stderr=as_json)
    if surprising := [result for result in checked if result.surprising]:
        fail(1, f"unlike expected: {', '.join(result.claim.name for result in surprising)}")


def _in_order(checked: Sequence[Checked], chosen: Sequence[Claim]) -> list[Checked]:
    """Results in the order of the chosen claims."""
    return sorted(checked, key=lambda result: chosen.index(result.claim))


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
        + (f"; {', '.join(failing)} {'does' if len(failing) == 1 else 'do'} not hold, as expected" if failing else "")
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
