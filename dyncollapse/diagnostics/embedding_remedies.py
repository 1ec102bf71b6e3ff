"""Remedies for measured embeddings: what follows from each fate, and what would tell open causes apart."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from dyncollapse.diagnostics.doubts import WORTH_SEEING, rows_to_see
from dyncollapse.diagnostics.evidence import ARITHMETIC, FEWEST_FOR_ERRORS, Evidence, format_name
from dyncollapse.diagnostics.remedies import Remedy, counted, every
from dyncollapse.diagnostics.shared_signal import family_margin
from dyncollapse.diagnostics.verdict import Fate, Mechanism, Verdict

REPRESENTATION = "representation"
# Samples from which on a number of samples is not worth a suggestion.
MOST_SUGGESTED = 1e8


def embedding_remedies(evidence: Evidence, verdict: Verdict) -> tuple[Remedy, ...]:
    """Return what to try for each fate that was found, and what would decide those that are open.

    Args:
        evidence: What was measured.
        verdict: What was concluded from it.

    Returns:
        Remedies first, then checks; empty if every dimension is in use.
    """
    found = [
        *_weaker_augmentation(evidence, verdict),
        *_longer_training(verdict),
        *_room(verdict),
        *_other_views(evidence, verdict),
        *_more_samples(evidence, verdict),
        *_precision(evidence, verdict),
        *_other_space(evidence, verdict),
    ]
    return tuple(sorted(found, key=lambda one: one.kind == "check"))


def space_remedies(verdicts: Mapping[str, Verdict], remedies: Mapping[str, Sequence[Remedy]]) -> tuple[Remedy, ...]:
    """Return remedies for an encoder whose spaces were diagnosed together.

    Args:
        verdicts: The verdict on each space by its name: "representation", and "embedding" if there is a projector.
        remedies: The remedies of each space.

    Returns:
        What the comparison of the spaces shows, then the remedies of each space, which are named where there are two.
    """
    counts = {space: sum(verdict.collapsed) for space, verdict in verdicts.items()}
    found = [*_kept_below(verdicts, counts), *_projector(verdicts)]
    asked = {"Diagnose the representation in front of the projector, too."}
    for space, ones in remedies.items():
        label = f"{space}: " if len(verdicts) > 1 else ""
        found += [
            Remedy(label + one.action, one.effect, one.source, one.kind) for one in ones if one.action not in asked
        ]
    return tuple(sorted(found, key=lambda one: one.kind == "check"))


def _kept_below(verdicts: Mapping[str, Verdict], counts: Mapping[str, int]) -> Iterator[Remedy]:
    """Suggest the representation where it keeps what the embedding loses."""
    if counts.get("embedding", 0) and REPRESENTATION in counts:
        z, r = (len(verdicts[space].dimensions) for space in ("embedding", REPRESENTATION))
        if counts[REPRESENTATION] / r < counts["embedding"] / z:
            yield Remedy(
                "Use the representation, not the embedding.",
                f"{counts['embedding']} of {z} dimensions collapsed in the embedding, {counts[REPRESENTATION]} of {r} "
                "in the representation: the projector takes the collapse upon itself.",
                "Jing et al. 2022, Proposition 1",
            )


def _projector(verdicts: Mapping[str, Verdict]) -> Iterator[Remedy]:
    """Suggest a projector for a representation that augmentation collapsed without one."""
    if list(verdicts) != [REPRESENTATION]:
        return
    if verdicts[REPRESENTATION].mechanism in (Mechanism.STRONG, Mechanism.BOTH):
        yield Remedy(
            "Train with a projector or as DirectCLR (this encoder has no projector).",
            "A linear projector takes the collapse upon itself as far as it starts smaller than the encoder; what it "
            "gains depends: on CIFAR-10 a nonlinear one cost a probe 1.6 points at temperature 0.1, and gained 3.7 at "
            "0.5 (5 epochs).",
            "docs: one axis, what a projector protects; results, CIFAR-10",
        )


def _weaker_augmentation(evidence: Evidence, verdict: Verdict) -> Iterator[Remedy]:
    dead, low = (verdict.fates.count(fate) for fate in (Fate.DEAD, Fate.SUPPRESSED))
    if evidence.views == "one-sided" and dead + low:
        yield Remedy(
            "Weaken the augmentation that acts along the dead dimensions.",
            _shares(evidence, verdict),
            "theory: rho = 1",
        )
    elif dead:
        yield Remedy(
            "Draw both views of a sample independently and by one pipeline.",
            f"The views are negatively correlated along {counted(dead)}; views drawn alike never have rho above 1.",
            "docs: one axis, two moments are enough",
        )
    if evidence.views == "two-sided" and low:
        most = verdict.unseen_signal
        bound = f" Now it is at most {most:.2g}, along {counted(low)}." if most else ""
        yield Remedy(
            "Weaken the augmentation that removes what the views share: leave out one operation at a time, and embed "
            "both views again.",
            f"A dimension grows once the correlation of its views is above 0.{bound}",
            "docs: beyond the paper, 5c",
        )


def _shares(evidence: Evidence, verdict: Verdict) -> str:
    """Say what share of the augmentation's variance leaves rho below 1, where rho was measured with uniform weights."""
    lost = [k for k, fate in enumerate(verdict.fates) if fate in (Fate.DEAD, Fate.SUPPRESSED)]
    rhos = [verdict.dimensions[k].rho for k in lost if k < len(evidence.variances)]
    clear = [float(evidence.variances[k]) > evidence.cause_floor for k in lost if k < len(evidence.variances)]
    known = sorted(rho for rho, so in zip(rhos, clear, strict=True) if so and rho is not None and rho >= 1)
    if not known or evidence.weights != "uniform":
        return "They grow once rho is below 1; by how much to weaken it does not follow from these files."
    some = f" ({1 / known[0]:.2g} for the first)" if len(known) > 1 else ""
    return (
        f"rho there is up to {known[-1]:.3g}: it falls below 1 in {every(len(known), 'direction')} at "
        f"{1 / known[-1]:.2g} of the augmentation's variance{some}. An estimate: it takes added noise, and directions "
        "that stay, each by itself."
    )


def _longer_training(verdict: Verdict) -> Iterator[Remedy]:
    if waiting := verdict.fates.count(Fate.WAITING):
        yield Remedy(
            "Train longer, and diagnose a later checkpoint with the same samples.",
            f"Data exceed augmentation along {counted(waiting)}: waiting dimensions grow, and their number falls. "
            "When does not follow from embeddings.",
            "docs: beyond the paper, 5f",
        )


def _room(verdict: Verdict) -> Iterator[Remedy]:
    if lost := verdict.fates.count(Fate.STRUCTURAL):
        dim = len(verdict.dimensions)
        yield Remedy(
            f"Widen the layer in front from {dim - lost} to {dim} units, or keep {dim - lost} outputs.",
            f"A linear layer of {dim - lost} inputs varies along {dim - lost} directions at most, so that more outputs "
            "than inputs cannot help.",
            "the rank of a matrix",
        )


def _other_views(evidence: Evidence, verdict: Verdict) -> Iterator[Remedy]:
    if Fate.UNEXPLAINED not in verdict.fates or (evidence.pairs is not None and not evidence.unaugmented):
        return
    told = "It shows for each dimension whether augmentation keeps it small or training has not reached it."
    source = "docs: beyond the paper, 5c"
    if evidence.uncompared:
        yield Remedy("Compare the views (`compare`).", told, source, "check")
    elif evidence.pairs is None:
        yield Remedy("Give another view of the same samples (`positives`).", told, source, "check")
    else:
        given = "The other view does not differ from the first."
        yield Remedy("Draw the other view by the augmentation of the training.", f"{given} {told}", source, "check")


def _more_samples(evidence: Evidence, verdict: Verdict) -> Iterator[Remedy]:
    source = "docs: diagnostics"
    compared = evidence.pairs is not None and not evidence.unaugmented
    if compared and Fate.UNEXPLAINED in verdict.fates:
        repeated = evidence.views == "one-sided" and not evidence.halves_apart and not evidence.few
        action = "Give each sample once, and its further views as further files." if repeated else "Embed more samples."
        yield Remedy(action, _needed(evidence, verdict, repeated=repeated), source, "check")
    hidden, low = verdict.unseen_signal, verdict.fates.count(Fate.SUPPRESSED)
    if hidden is not None and hidden > WORTH_SEEING and low:
        rows = rows_to_see(WORTH_SEEING, hidden, evidence.independent, low)
        if rows <= MOST_SUGGESTED:
            yield Remedy(
                f"Embed about {_round_up(rows)} samples.",
                f"They show correlations of the views above {WORTH_SEEING:g}: suppressed dimensions that have one are "
                "waiting.",
                source,
                "check",
            )
    if unseen := verdict.fates.count(Fate.UNSEEN):
        dim = len(verdict.dimensions)
        yield Remedy(
            f"Embed more distinct samples, ten times {dim} or more.",
            f"{unseen} of {dim} dimensions cannot be seen with these.",
            source,
            "check",
        )


def _needed(evidence: Evidence, verdict: Verdict, *, repeated: bool) -> str:
    """Say what it takes to decide the dimensions that are open."""
    if evidence.few:
        return f"Errors take {FEWEST_FOR_ERRORS} distinct rows or more."
    return "Repeated rows tie the halves of the samples to each other." if repeated else _decided(evidence, verdict)


def _decided(evidence: Evidence, verdict: Verdict) -> str:
    """Say how many samples would decide the clearest of the dimensions whose rho is within its error of 1."""
    open_ = [
        one for one in verdict.dimensions if one.fate is Fate.UNEXPLAINED and one.rho is not None and one.rho_error
    ]
    margin = family_margin(len(open_))
    # An error falls as the root of the number of samples.
    needed = [
        (evidence.independent * (margin * (one.rho_error or 0.0) / abs(one.rho - 1)) ** 2, one.rho)
        for one in open_
        if one.rho is not None and one.rho != 1
    ]
    rows, rho = min(needed, default=(math.inf, 1.0))
    if not rows <= MOST_SUGGESTED or rows <= evidence.independent:
        return "rho is within its error of 1."
    return f"rho is within its error of 1; about {_round_up(rows)} decide the clearest, if it stays at {rho:.3g}."


def _precision(evidence: Evidence, verdict: Verdict) -> Iterator[Remedy]:
    if not (hidden := verdict.fates.count(Fate.UNRESOLVED)):
        return
    told = f"{hidden} dimensions vary less than rounding may show."
    stored, steps = evidence.precision, max(evidence.steps, key=lambda one: one.any)
    if 0 < evidence.cause_floor <= ARITHMETIC * steps.any:
        action = f"Save float32 or float64, before any rounding to {steps.name}."
        yield Remedy(action, told, "docs: diagnostics", "check")
    elif stored.is_floating_point and torch.finfo(stored).eps > torch.finfo(torch.float32).eps:
        action = f"Save float32 or float64, before any rounding to {format_name(stored)}."
        yield Remedy(action, told, "docs: diagnostics", "check")
    elif stored is torch.float64 and evidence.direct is None:
        yield Remedy("Compute the spectrum by an SVD (`svd`).", told, "docs: diagnostics", "check")
    if evidence.inputs is None:
        yield Remedy(
            "Give the inputs of the last linear layer in both views (`inputs`, `input_positives`).",
            "They show the cause of dimensions that rounding hides.",
            "docs: diagnostics",
            "check",
        )


def _other_space(evidence: Evidence, verdict: Verdict) -> Iterator[Remedy]:
    lost = verdict.mechanism in (Mechanism.STRONG, Mechanism.BOTH)
    if lost and evidence.inputs is None and evidence.space != REPRESENTATION:
        yield Remedy(
            "Diagnose the representation in front of the projector, too.",
            "Collapse of an embedding need not reach it.",
            "Jing et al. 2022, Proposition 1",
        )


def _round_up(rows: float) -> str:
    """A number of rows, rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return str(math.ceil(rows / unit) * unit)
