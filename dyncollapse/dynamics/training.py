"""SGD on an ensemble of toy networks: one call trains all runs at once as batched matrices."""

import itertools
import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics.ensemble import Ensemble
from dyncollapse.dynamics.optimisers import Factory, check_factory, check_independent, optimiser_name
from dyncollapse.dynamics.sgd import Rule
from dyncollapse.dynamics.statistics import Record, Recorder, stacked
from dyncollapse.dynamics.trajectory import Interrupted, TrainingFailed, Trajectory, parameter_fields
from dyncollapse.model.networks import Weights, check_weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation, full_state, target_layers
from dyncollapse.runtime.process import check_count

# Steps between two checks whether the weights have diverged: each check waits for the device. A rule of thumb.
LOOK = 64


@dataclass(frozen=True)
class _Kept:
    """What is recorded at a step."""

    step: int
    parameters: list[Tensor]
    loss: Tensor
    statistics: dict[str, Tensor]


class Diverged(RuntimeError):
    """SGD diverged: embeddings grew a million times beyond order 1, or beyond their start.

    Attributes:
        trajectory: What was recorded before.
        step: The first step at which a run had diverged.
        stable_lr: A smaller learning rate that stays bounded on the same data, or None if none was found, and for an
            optimiser of one's own, which has its own rate.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> pairs = GaussianTask.block(2, 2, 8.0).sample(64, torch.Generator().manual_seed(0))
        >>> try:
        ...     train((torch.eye(2, dtype=torch.float64),), pairs, lr=1.0, steps=100)
        ... except Diverged as failure:
        ...     failure.stable_lr
        0.125
    """

    def __init__(
        self, trajectory: Trajectory, lr: float | None, step: int, stable_lr: float | None, checked: int
    ) -> None:
        """Write the message; `stable_lr` stayed bounded for `checked` steps, and `lr` is None under an optimiser."""
        if lr is None:
            how, advice = f"under {trajectory.meta['optimiser']}", "give it a smaller learning rate"
        elif stable_lr is None:
            how, advice = f"with lr {lr:g}", "no smaller lr that was tried helps"
        else:
            how, advice = f"with lr {lr:g}", f"lr {stable_lr:.3g} passes the first {checked} steps on the same data"
        super().__init__(f"{'SGD' if lr is not None else 'Training'} diverged at step {step} {how}; {advice}")
        self.trajectory, self.step, self.stable_lr = trajectory, step, stable_lr


def train(
    weights: Weights,
    pairs: Pairs | Iterable[Pairs],
    *,
    steps: int,
    lr: float | None = None,
    optimiser: Factory | None = None,
    objective: Objective | SelfDistillation | None = None,
    biases: Sequence[Tensor] = (),
    predictor: Tensor | None = None,
    target: Sequence[Tensor] = (),
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    records: int = 64,
    record: Record | None = None,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Trajectory:
    """Run SGD, or any optimiser of PyTorch, from `weights`, on a stream of batches or on one fixed set of pairs.

    Under SGD flow time is t = lr x steps, divided by (1 - momentum) for heavy-ball momentum. The paper uses plain SGD.
    Another optimiser follows no gradient flow: `time` then counts its steps, and `meta["time"]` is "steps". On a CPU,
    runs are shared out over `threads` where they have generators of their own, or are small linear networks under Eq. 2
    or the dot-product loss; single operations have fewer threads meanwhile.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        pairs: Batches (*runs, n, d). A stream must yield the same batches each time it is iterated, as PairStream does.
        steps: Number of steps.
        lr: Learning rate of SGD.
        optimiser: In place of lr, momentum and weight decay, a function of the parameters, weights before biases, that
            makes an optimiser for them, or a tuple of one and its schedule. It is called for every share of the runs,
            and must act on each run by itself: entry by entry, as SGD, Adam and most others do. Parameters that the
            optimiser leaves out stay as they are.
        objective: What is minimised; Eq. 2 unless given. SelfDistillation for BYOL and SimSiam.
        biases: One tensor (*runs, out) per layer, or none.
        predictor: Where the predictor (*runs, m, m) of SelfDistillation starts; see `balanced_predictor`.
        target: Where the layers of BYOL's target start; as the weights unless given.
        momentum: Heavy-ball momentum, as in torch.optim.SGD.
        weight_decay: Its product with the parameter is added to the gradient; not so for a target.
        records: About how many states are kept, evenly spaced in log step.
        record: Statistics to keep beside each state: a function of the weights that returns a dict of tensors
            (*runs, ...), or a dict of functions of the weights.
        progress: Called with (step, steps) about 200 times.
        threads: CPU threads that step runs at the same time, by default as many as PyTorch has, fewer where these would
            not pay. Where there are fewer than two parts with generators of their own per thread, each part has a
            thread.

    Returns:
        The recorded states, each with the loss on the batch of its step and the statistics.

    Raises:
        ValueError: For unusable settings, shapes or batches, optimisers that need a closure or mix the runs, and
            statistics that change their shape.
        Diverged: When the weights blow up, with what was recorded.
        TrainingFailed: When a step cannot be taken, as by a schedule that ends early; likewise. It is a ValueError.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        Jing et al. 2022, Section 4; docs/explanation/beyond-the-paper.md, section 5g for momentum and weight decay.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 1, aug_strength=4.0)  # the second input is augmented beyond the threshold of 1
        >>> stream, start = task.stream(64, torch.Generator().manual_seed(0)), 0.1 * torch.eye(2, dtype=torch.float64)
        >>> path = train((start,), stream, lr=0.05, steps=400)
        >>> round(float(path.time[-1]), 6), (path.singular_values[-1] > 0.1).tolist()
        (20.0, [True, False])
        >>> size = {"norm": lambda weights: weights[0].norm(dim=(-2, -1))}
        >>> path = train((start,), stream, steps=400, optimiser=lambda p: torch.optim.Adam(p, lr=0.05), record=size)
        >>> float(path.time[-1]), path.statistics["norm"].shape == path.time.shape
        (400.0, True)
    """
    check_weights(weights, biases)
    check_count("threads", threads)
    _check_restarts(pairs)
    rule = Rule(lr or 0.0, objective or Objective(), momentum, weight_decay, optimiser)
    _check_settings(lr, rule, steps, records)
    others = full_state(rule.objective, weights, predictor, target, biases)
    settings, recorder = _meaning(rule, weights, others), Recorder(record, weights[0].shape[:-2])
    started, kept = clock.perf_counter(), list[_Kept]()
    recorded, stride = {*record_steps(steps, records)}, max(1, steps // 200)
    looks = sorted({*recorded, *range(0, steps, LOOK), *range(0, steps, stride if progress else steps)})

    def start(rate: float) -> Ensemble:
        return Ensemble(weights, others, pairs, replace(rule, lr=rate), threads)

    def trajectory() -> Trajectory:
        meta = settings | {"steps": steps, "seconds": clock.perf_counter() - started}
        return _trajectory(kept, rule.unit, len(weights), meta)

    try:
        with start(rule.lr) as ensemble:
            for step in _bounded(ensemble, looks):
                if step in recorded:
                    state = ensemble.parameters()
                    kept.append(_Kept(step, state, ensemble.loss(), recorder.at(tuple(state[: len(weights)]))))
                if progress and (step % stride == 0 or step == steps):
                    progress(step, steps)
        if kept[-1].step == steps:
            return trajectory()
        step, stable_lr, checked = _advice(start, rule, steps, pairs)
    except (KeyboardInterrupt, TrainingFailed) as stop:
        raise _with_record(stop, trajectory()) from stop.__cause__
    raise Diverged(trajectory(), lr, step + 1, stable_lr, checked)


def _with_record(stop: KeyboardInterrupt | TrainingFailed, path: Trajectory) -> Interrupted | TrainingFailed:
    return TrainingFailed(stop.step, stop.reason, path) if isinstance(stop, TrainingFailed) else Interrupted(path)


def record_steps(steps: int, records: int = 64) -> list[int]:
    """Steps 0 and `steps`, and about `records` - 2 between them, evenly spaced in log step.

    Args:
        steps: The last step.
        records: About how many steps to return.

    Returns:
        Ascending steps.

    Examples:
        >>> record_steps(1000, 5)
        [0, 1, 10, 100, 1000]
    """
    spaced = np.geomspace(1, steps, max(records - 1, 1)).round().astype(int)
    return sorted({0, *spaced.tolist(), steps})


def _bounded(ensemble: Ensemble, stops: Iterable[int]) -> Iterator[int]:
    """Advance to each of the steps in turn, and end before the first at which a run has blown up."""
    for step in stops:
        ensemble.advance(step - ensemble.step)
        if not ensemble.within_bounds():
            return
        yield step


def _advice(
    start: Callable[[float], Ensemble], rule: Rule, steps: int, pairs: Pairs | Iterable[Pairs]
) -> tuple[int, float | None, int]:
    """Return the last step within bounds, a stable rate where SGD has one, and the steps for which that was tried."""
    with start(rule.lr) as again:
        step = max(_bounded(again, range(steps)))
    if not isinstance(pairs, Pairs):
        _check_finite(step + 1, next(itertools.islice(pairs, step, None)))
    if rule.optimiser is not None:
        return step, None, 0
    # A stable rate has to survive well beyond the step at which this one failed.
    checked = min(steps, 4 * step + 100)
    return step, _stable_learning_rate(start, rule.lr, checked), checked


def _check_finite(step: int, batch: Pairs) -> None:
    """Raise TrainingFailed where the batch, and not the rate, is why a step left the range of numbers."""
    if not all(bool(torch.isfinite(view).all()) for view in (batch.anchor, batch.positive)):
        raise TrainingFailed(step, "its batch holds NaN or infinity; give finite ones")


def _stable_learning_rate(start: Callable[[float], Ensemble], lr: float, checked: int) -> float | None:
    """Halve the rate until it and the one before both survive `checked` steps: stable, with a factor 2 to spare."""
    survived = False
    # A rate that is far too large fails within a few steps: looks after 1, 2, 4 steps and so on spare it the others.
    looks = sorted({*(2**e for e in range(LOOK.bit_length()) if 2**e < checked), *range(0, checked, LOOK), checked})
    for halvings in range(1, 200):
        trial = lr / 2**halvings
        with start(trial) as ensemble:
            before, survived = survived, checked in _bounded(ensemble, looks)
        if before and survived:
            return trial
    return None


def _trajectory(kept: list[_Kept], unit: float, depth: int, meta: dict[str, Any]) -> Trajectory:
    paths = [torch.stack(path) for path in zip(*(one.parameters for one in kept), strict=True)]
    fields = parameter_fields(paths, depth) if kept else {"weights": ()}
    loss = torch.stack([one.loss for one in kept]) if kept else torch.empty(0)
    time = unit * torch.tensor([one.step for one in kept], dtype=torch.float64)
    statistics = stacked([one.statistics for one in kept])
    return Trajectory(time, loss=loss, meta=meta, statistics=statistics, **fields)


def _meaning(rule: Rule, weights: Weights, others: Sequence[Tensor]) -> dict[str, Any]:
    """Return the settings that a record keeps."""
    if rule.optimiser is None:
        settings = {"lr": rule.lr, "momentum": rule.momentum, "weight_decay": rule.weight_decay}
        return {"dynamics": "sgd", **settings, "time": "flow"}
    learnt = others[: len(others) - len(target_layers(rule.objective, others))]
    parameters, runs = (*weights, *learnt), weights[0].shape[:-2]
    name = optimiser_name(rule.optimiser, parameters)
    if runs.numel() > 1:
        check_independent(rule.optimiser, parameters, len(runs))
    return {"dynamics": name, "optimiser": name, "time": "steps"}


def _check_restarts(pairs: Pairs | Iterable[Pairs]) -> None:
    if isinstance(pairs, Iterator):
        raise ValueError("the batches come from an iterator, which ends after one use; give a list or a PairStream")


def _check_settings(lr: float | None, rule: Rule, steps: int, records: int) -> None:
    if rule.optimiser is not None:
        check_factory(rule.optimiser)
    if (lr is None) == (rule.optimiser is None):
        given = "neither lr nor optimiser is" if lr is None else "optimiser and lr are both"
        raise ValueError(f"{given} given; give lr for SGD, or an optimiser that has its own learning rate")
    momentum, weight_decay = rule.momentum, rule.weight_decay
    for name, value, allowed, fine in (
        ("lr", lr, "finite and above 0", lr is None or 0 < lr < float("inf")),
        ("steps", steps, "at least 1", steps >= 1),
        ("momentum", momentum, "at least 0 and below 1", 0 <= momentum < 1),
        ("weight decay", weight_decay, "finite and at least 0", 0 <= weight_decay < float("inf")),
        ("records", records, "at least 2", records >= 2),
    ):
        if not fine:
            raise ValueError(f"{name} is {value}; it must be {allowed}")
        if rule.optimiser is not None and name in ("momentum", "weight decay") and value:
            raise ValueError(f"{name} is {value} beside an optimiser, which has its own; set it in the optimiser")
    rate = rule.objective.target_rate if isinstance(rule.objective, SelfDistillation) else None
    if rate is not None and rate * rule.unit > 1:
        raise ValueError(
            f"target_rate is {rate:g} with steps of {rule.unit:g}, so that the target would overshoot; it must be at "
            f"most {1 / rule.unit:g}, where the target is the encoder itself"
        )
