"""What BYOL and SimSiam need of a simulation: their rates, their rest points and their verdict."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dyncollapse.diagnostics.verdict import DimensionVerdict, Fate, Verdict
from dyncollapse.model.choices import SELF_DISTILLED
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.configuration import TARGET_MOMENTUM, Configuration
from dyncollapse.simulation.dimensions import Dimensions, geometric_mean
from dyncollapse.simulation.verdict import give_room, in_words, measured_values, want
from dyncollapse.theory.modes import have_common_modes
from dyncollapse.theory.self_distillation import ByolRest, byol_learning_times, byol_rest

# Share of its rest variance at which a waiting mode counts as escaped.
ESCAPED = 0.5


def self_distillation(c: Configuration) -> SelfDistillation | None:
    """The objective of the losses byol and simsiam; None for others."""
    if c.loss not in SELF_DISTILLED:
        return None
    kept = TARGET_MOMENTUM if c.target_momentum is None else c.target_momentum
    rate = (1 - kept) * (1 - c.momentum) / c.lr if c.loss == "byol" else None
    return SelfDistillation(1.0 if c.predictor_rate is None else c.predictor_rate, rate, c.activation)


def rest_of(c: Configuration, task: GaussianTask) -> ByolRest | None:
    """Where the modes of a linear network rest; None for ReLU networks and covariances without common modes."""
    # Dimensions of networks with an activation are sampled directions, in another order than the modes.
    if c.activation != "linear" or not have_common_modes(task):
        return None
    rate = 1.0 if c.predictor_rate is None else c.predictor_rate
    return byol_rest(task.to(torch.float64), c.weight_decay, predictor_rate=rate, depth=c.depth)


def distilled_scale(c: Configuration) -> float:
    """Singular value at rest of a mode without augmentation and weight decay, under byol and simsiam."""
    rate = 1.0 if c.predictor_rate is None else c.predictor_rate
    return rate ** (-c.depth / 2)


def judge_distilled(
    c: Configuration, end: Dimensions, rest: ByolRest | None, time: float, room: int, outputs: int
) -> Verdict:
    """Judge which dimensions of BYOL or SimSiam collapsed, and why, from the mean over runs.

    A dimension is alive while its singular value exceeds COLLAPSED_BELOW times that of a mode without augmentation and
    decay at rest, or times the largest one. Of the others, those along which no input varies are *structural*. Those
    for which zero is the only rest point are *decayed* if weight decay is on, and *dead* if they share no signal
    between the views. With weight decay zero is stable for the rest, too: a mode below its unstable rest point has
    *decayed* from this start. It is *waiting* if a living mode rests lower, since it then takes over the output of that
    one. Without weight decay every other mode waits. No more than `room` dimensions can be alive at once: others that
    could live are *structural*. Fates of ReLU networks stay open.

    Args:
        c: The settings.
        end: Singular values (*runs, k); for linear networks mode by mode.
        rest: Rest points of the modes, or None.
        time: Flow time of the end.
        room: Width of the narrowest layer.
        outputs: Embedding dimension.

    Returns:
        The verdict. The times of waiting modes hold for SimSiam without weight decay; others are not known.
    """
    sigma, threshold = measured_values(end, distilled_scale(c))
    k, alive = len(sigma), sigma > threshold
    if rest is None:
        fates = [Fate.ALIVE if one else Fate.UNEXPLAINED for one in alive.tolist()]
        return _verdict(c, fates, [None] * k, threshold, lack=want(room, room), outputs=None, rest=None)
    varies = (~end.ratio.reshape(-1, k).isnan().all(0)).tolist()
    fates = [_fate(i, alive, sigma, rest) if varies[i] else Fate.STRUCTURAL for i in range(k)]
    give_room(fates, room, rest.encoder, rest.encoder)
    times: list[float | None] = [None] * k
    if c.loss == "simsiam" and c.weight_decay == 0:
        start = geometric_mean(end.singular_value[..., : len(rest.encoder)])
        left = byol_learning_times(rest, start.to(torch.float64).cpu(), ESCAPED).tolist()
        times = [time + left[i] if fate is Fate.WAITING else None for i, fate in enumerate(fates)]
    fewer = outputs if outputs < k else None
    lack = want(room, sum(varies))
    return _verdict(c, fates, times, threshold, lack=lack, outputs=fewer, rest=rest)


def _fate(i: int, alive: Tensor, sigma: Tensor, rest: ByolRest) -> Fate:
    if alive[i]:
        return Fate.ALIVE
    if i >= len(rest.encoder):
        return Fate.STRUCTURAL
    if float(rest.critical_decay[i]) == 0:
        return Fate.DEAD
    if float(rest.encoder[i]) == 0:
        return Fate.DECAYED
    if rest.weight_decay == 0 or float(sigma[i]) > float(rest.basin[i]):
        return Fate.WAITING
    others = rest.encoder.to(alive.device)
    lower = alive[: len(others)] & (others < others[i] * (1 - 1e-9)) & (others > float(rest.basin[i]))
    return Fate.WAITING if bool(lower.any()) else Fate.DECAYED


def _decays(fates: Sequence[Fate], rest: ByolRest | None) -> str:
    """How many modes decay from every start, and how many from this one."""
    of_any = [] if rest is None else (rest.encoder == 0).tolist()
    lost = [every for fate, every in zip(fates, of_any, strict=False) if fate is Fate.DECAYED]
    parts = {"above its critical value for {}": sum(lost), "from this start for {}": len(lost) - sum(lost)}
    return ", ".join(words.format(count) for words, count in parts.items() if count)


def _verdict(
    c: Configuration,
    fates: Sequence[Fate],
    times: Sequence[float | None],
    threshold: float,
    *,
    lack: str,
    outputs: int | None,
    rest: ByolRest | None,
) -> Verdict:
    judged = tuple(DimensionVerdict(fate, time) for fate, time in zip(fates, times, strict=True))
    counts = {fate: fates.count(fate) for fate in Fate}
    total = len(fates) if outputs is None else outputs
    ends = [time for time in times if time is not None]
    mean = " in a run of mean size" if c.runs > 1 else " or before"
    latest = f", the last one at t = {max(ends):.3g}{mean}" if ends else ""
    reasons = {
        Fate.DECAYED: f"by weight decay {c.weight_decay:g} ({_decays(fates, rest)})",
        Fate.DEAD: "by strong augmentation (the views share no signal)",
        Fate.WAITING: f"by implicit regularization (waiting: they grow{latest})",
        Fate.STRUCTURAL: f"for want of {lack}",
        Fate.UNEXPLAINED: "for a cause that is open (no rest point is known for this network and task)",
    }
    kind = "dimensions collapsed" if outputs is None else f"embedding dimensions collapsed. Of {len(fates)} input modes"
    parts = [f"{counts[fate]} {reason}" for fate, reason in reasons.items() if counts[fate]]
    return Verdict(judged, threshold, in_words(max(0, total - counts[Fate.ALIVE]), total, parts, kind), outputs)
