"""How wide a network has to be for the dimensions that live, or that a remedy would let live."""

from dataclasses import replace

from dyncollapse.diagnostics.remedies import Remedy
from dyncollapse.diagnostics.verdict import Fate, Verdict
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import room

LIVING = (Fate.ALIVE, Fate.WAITING, Fate.UNEXPLAINED)


def unfed_outputs(outcome: Outcome) -> tuple[int, int]:
    """How many outputs no input direction that varies can reach, and how many can vary."""
    ratio = outcome.ends[outcome.judged].ratio
    unfed = int(ratio.reshape(-1, ratio.shape[-1]).isnan().any(0).sum())
    return unfed, ratio.shape[-1] - unfed


def widened(remedy: Remedy, outcome: Outcome, verdict: Verdict, freed: int) -> Remedy:
    """Let a remedy also ask for the width that the dimensions need which it lets live.

    Args:
        remedy: A remedy for dimensions that could live but for one cause.
        outcome: The finished dynamics.
        verdict: Its verdict.
        freed: How many dimensions the remedy lets live.

    Returns:
        The remedy as it is where the narrowest layer has room for these beside all that live or lack nothing but room.
    """
    if has_room(outcome, verdict, freed):
        return remedy
    widths = f"from {room(outcome.simulation)} to {units(outcome, verdict) + freed} units"
    return replace(remedy, action=f"{remedy.action[:-1]}, and widen the narrowest layer {widths}.")


def has_room(outcome: Outcome, verdict: Verdict, freed: int) -> bool:
    """Whether so many more dimensions could live beside all that live or lack nothing but room."""
    return units(outcome, verdict) + freed <= room(outcome.simulation)


def units(outcome: Outcome, verdict: Verdict) -> int:
    """Units that the dimensions need which live, or lack nothing but room."""
    narrow = verdict.fates.count(Fate.STRUCTURAL) - unfed_outputs(outcome)[0]
    return sum(fate in LIVING for fate in verdict.fates) + max(0, narrow)
