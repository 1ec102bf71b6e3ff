"""Warnings about the count and the fates of a report: what these embeddings leave open."""

from collections.abc import Callable, Iterator

from dyncollapse.diagnostics.evidence import ARITHMETIC, FEWEST_FOR_ERRORS, Evidence, has_unit_rows
from dyncollapse.diagnostics.shared_signal import SharedSignal, noise_correlation
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict

# A shared signal of this correlation is strong enough to be missed: one half of it is a tenth of the variance. If
# sampling explains more than that, a warning says how many rows would show correlations from WORTH_SEEING on.
STRONG, WORTH_SEEING = 0.3, 0.1
# Samples per dimension from which on a second view of the same samples shows some shared signal.
ENOUGH = 10
# Ratio of total variances that two views of one distribution do not reach.
UNLIKE = 2.0
# Share of the dimensions by which two counts must differ to be reported; docs/explanation/diagnostics.md, section 6,
# calls a count wrong from there on.
A_LOT = 0.1


def doubts(
    evidence: Evidence, verdict: Verdict, signals: dict[str, SharedSignal | None], rankme: float | None
) -> list[str]:
    """Warn of views that do not fit, of suppressed dimensions that may wait, of a spectrum without a cliff, and others.

    Args:
        evidence: What was measured.
        verdict: What was concluded from it.
        signals: The signal that the views share, by the name of what they are views of.
        rankme: RankMe of the embeddings, if it is defined.

    Returns:
        One line per reason to doubt the verdict.
    """
    return [
        *(line for name, signal in signals.items() for line in _unrelated(name, signal, evidence.independent)),
        *_unlike_views(evidence),
        *_hidden_signal(evidence, verdict),
        *_no_cliff(evidence, verdict, rankme),
        *_normalised(evidence, verdict),
        *_within_steps(evidence, verdict),
    ]


def _unrelated(name: str, signal: SharedSignal | None, samples: int) -> Iterator[str]:
    """Warn of views that share no signal at all, as those of different samples do."""
    if signal is not None and signal.tested and not signal.positive and samples >= ENOUGH * signal.tested:
        yield (
            f"the views of the {name} share signal in no direction, with {samples} samples of {signal.tested} "
            "dimensions: check that row i of both is the same sample"
        )


def _unlike_views(evidence: Evidence) -> Iterator[str]:
    """Warn of views that cannot be from one network: one normalised and one not, or of very unlike variance."""
    if len({evidence.normalised, *map(has_unit_rows, evidence.others)}) == 2:
        yield (
            "some views are normalised (every row has length 1) and others are not: rho then compares different "
            "spaces; save all views alike"
        )
    elif evidence.others and evidence.views == "two-sided" and len(evidence.rows) >= FEWEST_FOR_ERRORS:
        totals = [float(rows.var(0).sum()) for rows in (evidence.centred, *evidence.centred_others)]
        if max(totals) > UNLIKE * min(totals):
            yield (
                f"the total variances of the views are {', '.join(f'{one:.3g}' for one in totals)}: two-sided views "
                "come from one distribution, so check that all are of one network and one layer, and how they were made"
            )


def _hidden_signal(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """Warn of suppressed dimensions in which so few samples could hide a strong signal."""
    hidden = verdict.unseen_signal
    if hidden is None or hidden <= STRONG:
        return
    rows = rows_to_see(WORTH_SEEING, hidden, evidence.independent, verdict.fates.count(Fate.SUPPRESSED))
    yield (
        f"{evidence.independent} samples cannot tell a correlation of {hidden:.2g} from none, so suppressed dimensions "
        f"may be waiting; about {float(f'{rows:.1e}'):.0f} samples show correlations above {WORTH_SEEING:g}"
    )


def rows_to_see(wanted: float, explained: float, samples: int, directions: int) -> int:
    """Estimate how many samples it takes until sampling explains only weak correlations.

    Args:
        wanted: Correlation that sampling may still explain then.
        explained: Correlation that sampling explains with `samples`. It shows by what factor heavy tails or a scale
            that features share reduce the number of independent samples.
        samples: Number of samples at present.
        directions: Number of directions without a shared signal.

    Returns:
        The number of samples.

    Examples:
        >>> from dyncollapse.diagnostics.shared_signal import noise_correlation
        >>> rows = rows_to_see(0.1, 1.0, samples=8, directions=8)
        >>> noise_correlation(rows, 8) <= 0.1 < noise_correlation(rows - 1, 8)
        True
    """
    # No test takes fewer samples than directions.
    independent = _least(lambda n: noise_correlation(n, directions) <= explained, directions + 1)
    return round(max(1.0, samples / independent) * _least(lambda n: noise_correlation(n, directions) <= wanted, 1))


def _least(holds: Callable[[int], bool], low: int) -> int:
    """Return the least whole number from `low` on for which a condition holds that stays true once it is."""
    high = low
    while not holds(high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _no_cliff(evidence: Evidence, verdict: Verdict, rankme: float | None) -> Iterator[str]:
    """Warn of variances that fall slowly: a level relative to the largest one would count many more."""
    values = evidence.variances[: evidence.seen]
    below = int((values <= COLLAPSED_BELOW**2 * values[0]).sum())
    counted = int((values <= verdict.threshold).sum())
    if rankme is not None and below - counted > A_LOT * evidence.dim:
        yield (
            f"the variances fall without one cliff, so the count depends on where small begins: {counted} lie below "
            f"{verdict.threshold:.2g}, {below} below {COLLAPSED_BELOW**2:g} of the largest; RankMe is {rankme:.3g}"
        )


def _normalised(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """Say that a fate of normalised embeddings is an interpretation."""
    if evidence.normalised and {Fate.DEAD, Fate.SUPPRESSED, Fate.WAITING} & set(verdict.fates):
        yield (
            "the embeddings are normalised, which is no linear step: a fate is an interpretation, not a prediction; "
            "embeddings before the normalisation show it better"
        )


def _within_steps(evidence: Evidence, verdict: Verdict) -> Iterator[str]:
    """Say where the views show no cause since their values are too coarse."""
    coarsest = max(evidence.steps, key=lambda steps: steps.any)
    if evidence.pairs is None or not evidence.cause_floor == ARITHMETIC * coarsest.any > 0:
        return
    judged = zip(evidence.variances.tolist(), verdict.fates, strict=False)
    close = sum(fate is Fate.UNRESOLVED and value > evidence.noise_floor for value, fate in judged)
    if close:
        yield (
            f"{close} dimension(s) vary by less than {ARITHMETIC} times what values in {coarsest.name} can hide: their "
            "rounding could pass for augmentation, so the views do not decide the cause there"
        )
