"""Check many claims, here or in worker processes."""

from collections.abc import Iterator, Sequence

import torch

from dyncollapse.claims import CLAIMS
from dyncollapse.claims.check import Checked, Claim, Measured, run_check
from dyncollapse.runtime.dispatch import Workers, dispatch
from dyncollapse.runtime.process import recycle_freed_memory


def check_claims(claims: Sequence[Claim], workers: Workers | None = None) -> Iterator[Checked]:
    """Check claims, which are independent of each other and have seeds of their own.

    Args:
        claims: The claims; those that workers check are among CLAIMS.
        workers: Where they are checked, in any order; None checks them in this process, in their order.

    Yields:
        The result of each claim as soon as it is there. A claim whose worker dies could not be checked.

    Examples:
        >>> [result.holds for result in check_claims([claim for claim in CLAIMS if claim.name == "lemma-1"])]
        [True]
    """
    if workers is None:
        yield from map(run_check, claims)
        return
    by_name = {claim.name: claim for claim in claims}
    for (name,), outcome in dispatch(_measure, [[name] for name in by_name], workers):
        if isinstance(outcome, Exception):
            yield Checked(by_name[name], None, f"its process died: {outcome}", 0.0)
        else:
            yield Checked(by_name[name], *outcome)


def _measure(names: list[str]) -> tuple[Measured | None, str | None, float]:
    """The result of the claim of this name, without the claim: its check cannot be pickled."""
    torch.set_num_threads(1)  # allowed: this process belongs to the workers
    recycle_freed_memory()
    result = run_check(next(claim for claim in CLAIMS if claim.name == names[0]))
    return result.measured, result.error, result.seconds
