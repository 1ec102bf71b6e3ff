"""Check many claims, here or in worker processes."""

from collections.abc import Iterator, Sequence

import torch

from dyncollapse.claims import CLAIMS
from dyncollapse.claims.check import Checked, Claim, Measured, run_check
from dyncollapse.runtime.dispatch import Workers, dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.process import check_count, cores, recycle_freed_memory
from dyncollapse.runtime.settings import SettingError, did_you_mean, quoted


def chosen_claims(names: Sequence[str] = ()) -> list[Claim]:
    """Claims by their names.

    Args:
        names: The names; none for all claims.

    Returns:
        The claims, in the order in which they are first named.

    Raises:
        SettingError: For unknown names; the message suggests near ones.

    Examples:
        >>> [claim.name for claim in chosen_claims(["lemma-2", "lemma-1"])]
        ['lemma-2', 'lemma-1']
    """
    known = {claim.name: claim for claim in CLAIMS}
    if strange := [name for name in names if not isinstance(name, str)]:
        raise SettingError(f"`claim` holds {quoted(strange[0])}; give names of claims, as 'lemma-1'")
    if unknown := [name for name in names if name not in known]:
        told = did_you_mean(unknown[0], known, f"the claims are {', '.join(known)}")
        if "," in unknown[0]:
            told = "give one claim per `claim`, which is repeatable"
        raise SettingError(f"`claim` is {', '.join(unknown)}; {told}")
    return [known[name] for name in dict.fromkeys(names)] or list(CLAIMS)


def claim_workers(chosen: Sequence[Claim], workers: int | None, *, named: bool) -> Workers | None:
    """Processes that check claims: no more than there are claims, and by default none for claims that were named.

    Processes import for seconds, and most single claims take less.

    Args:
        chosen: The claims.
        workers: Number of processes; None for the default.
        named: Whether the claims were named.

    Returns:
        The workers; None where this process checks the claims.

    Raises:
        SettingError: For a number that this machine cannot run.
    """
    check_count("workers", workers)
    count = min(workers or (1 if named else cores()), len(chosen))
    return local_workers(count) if count > 1 else None


def in_order(checked: Sequence[Checked], chosen: Sequence[Claim]) -> list[Checked]:
    """Results in the order of the chosen claims."""
    return sorted(checked, key=lambda result: chosen.index(result.claim))


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
