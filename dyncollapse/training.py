"""SGD on an ensemble of toy networks: one call trains all runs at once as batched matrices."""

import itertools
import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dyncollapse.gaussian import Pairs
from dyncollapse.memory import recycle_freed_memory
from dyncollapse.networks import Weights, check_weights, end_to_end
from dyncollapse.objective import Objective
from dyncollapse.trajectory import Interrupted, Trajectory

Iterate = tuple[int, Weights, tuple[Tensor, ...], Pairs]

# Contrastive losses act on embeddings of order 1 (a kernel width, a temperature); a network that maps its
# data this many times beyond that, or beyond its start, is on its way to infinity.
BLOW_UP = 1e6
# Steps between two looks at whether it is (ours): each look waits for the device.
LOOK = 64


class Diverged(RuntimeError):
    """SGD left every bound: `step` says when, `stable_lr` what passed the same data, `trajectory` what was recorded."""

    def __init__(self, trajectory: Trajectory, lr: float, step: int, stable_lr: float | None, checked: int) -> None:
        """Compose the one-line message that a user is shown."""
        advice = (
            f"lr {stable_lr:.3g} passes the first {checked} steps on the same data"
            if stable_lr is not None
            else "no smaller lr that was tried helps"
        )
        super().__init__(f"SGD diverged at step {step} with lr {lr:g}; {advice}")
        self.trajectory, self.step, self.stable_lr = trajectory, step, stable_lr


def train(
    weights: Weights,
    pairs: Pairs | Iterable[Pairs],
    *,
    lr: float,
    steps: int,
    objective: Objective | None = None,
    biases: Sequence[Tensor] = (),
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    records: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Run SGD from `weights` (*runs, out, in) per layer, on a stream of batches or on one fixed set of pairs.

    A stream must yield the same batches whenever it is iterated, as PairStream does.

    Flow time is t = lr x steps, divided by (1 - momentum) for heavy-ball momentum. Plain SGD is the paper's.
    About `records` states are kept, evenly spaced in log step, with the loss on the batch at hand.
    `progress(step, steps)` is called about 200 times. Raises ValueError for unusable settings, Diverged when the
    weights blow up, Interrupted on Ctrl-C; the last two carry what was recorded.
    """
    objective = objective or Objective()
    check_weights(weights, biases)
    _check_settings(lr, steps, momentum, weight_decay, records)
    recycle_freed_memory()
    started = clock.perf_counter()
    schedule, stride = {*record_steps(steps, records)}, max(1, steps // 200)
    rate = lr / (1 - momentum)
    kept: list[tuple[int, list[Tensor], Tensor]] = []

    def trajectory() -> Trajectory:
        meta = {"dynamics": "sgd", "lr": lr, "steps": steps, "momentum": momentum, "weight_decay": weight_decay}
        meta |= {"seconds": clock.perf_counter() - started}
        return _trajectory(kept, rate, len(weights), meta)

    def iterates(lr: float, stops: Callable[[int], bool]) -> Iterator[Iterate]:
        return _iterates(weights, biases, pairs, lr, objective, momentum, weight_decay, stops)

    def stops(step: int) -> bool:
        return step in schedule or step % LOOK == 0 or (progress is not None and step % stride == 0)

    try:
        for step, layers, shifts, batch in iterates(lr, stops):
            if step in schedule:
                kept.append((step, [p.clone() for p in (*layers, *shifts)], objective.value(layers, batch, shifts)))
            if progress and (step % stride == 0 or step == steps):
                progress(step, steps)
            if step == steps:
                return trajectory()
        within_bounds = itertools.islice(iterates(lr, lambda _: True), steps)
        step = max(step for step, *_ in within_bounds)
        # A stable rate has to survive well beyond the step at which this one failed.
        checked = min(steps, 4 * step + 100)
        stable_lr = _stable_learning_rate(iterates, lr, checked)
    except KeyboardInterrupt:
        raise Interrupted(trajectory()) from None
    raise Diverged(trajectory(), lr, step + 1, stable_lr, checked)


def record_steps(steps: int, records: int = 64) -> list[int]:
    """Steps 0 and `steps`, and about `records` - 2 between them, evenly spaced in log step."""
    spaced = np.geomspace(1, steps, max(records - 1, 1)).round().astype(int)
    return sorted({0, *spaced.tolist(), steps})


def _iterates(
    weights: Weights,
    biases: Sequence[Tensor],
    pairs: Pairs | Iterable[Pairs],
    lr: float,
    objective: Objective,
    momentum: float,
    weight_decay: float,
    stops: Callable[[int], bool],
) -> Iterator[Iterate]:
    """Yield (step, weights, biases, batch) before each in-place update that `stops` names, and end on a blow-up."""
    layers = tuple(w.detach().clone() for w in weights)
    shifts = tuple(b.detach().clone() for b in biases)
    parameters = (*layers, *shifts)
    velocities = [torch.zeros_like(p) for p in parameters] if momentum else parameters
    batches: Iterable[Pairs] = itertools.repeat(pairs) if isinstance(pairs, Pairs) else pairs
    closed_form, bound = objective.closed_form(biases), 0.0
    for step, batch in enumerate(batches):
        if stops(step):
            largest = float(end_to_end(layers).abs().max())
            bound = bound or BLOW_UP * max(1 / max(float(batch.anchor.abs().max()), 1e-30), largest)
            if not largest < bound:  # false for NaN, too
                return
            yield step, layers, shifts, batch
        # Without autograd a tenth of a single run's step is bookkeeping that nobody reads.
        with torch.inference_mode(closed_form):
            gradients = objective.gradient(layers, batch, shifts)
            for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
                update = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
                if momentum:
                    update = velocity.mul_(momentum).add_(update)
                parameter.sub_(update, alpha=lr)


def _stable_learning_rate(
    iterates: Callable[[float, Callable[[int], bool]], Iterator[Iterate]],
    lr: float,
    checked: int,
) -> float | None:
    """Halve the rate until it and the one before both survive `checked` steps: stable, with a factor 2 to spare."""
    survived = False
    for halvings in range(1, 200):  # a hopeless rate fails at once, so the way down is short
        trial = lr / 2**halvings
        steps = (step for step, *_ in iterates(trial, lambda step: step == checked or step % LOOK == 0))
        before, survived = survived, any(step == checked for step in steps)
        if before and survived:
            return trial
    return None


def _trajectory(kept: list[tuple[int, list[Tensor], Tensor]], rate: float, depth: int, meta: dict) -> Trajectory:
    steps, parameters, losses = zip(*kept, strict=True) if kept else ((), (), ())
    layers = [torch.stack(path) for path in zip(*parameters, strict=True)]
    loss = torch.stack(losses) if kept else torch.empty(0)
    time = rate * torch.tensor(steps, dtype=torch.float64)
    return Trajectory(time, tuple(layers[:depth]), loss, tuple(layers[depth:]), meta)


def _check_settings(lr: float, steps: int, momentum: float, weight_decay: float, records: int) -> None:
    for name, value, allowed, fine in (
        ("lr", lr, "finite and above 0", 0 < lr < float("inf")),
        ("steps", steps, "at least 1", steps >= 1),
        ("momentum", momentum, "at least 0 and below 1", 0 <= momentum < 1),
        ("weight decay", weight_decay, "finite and at least 0", 0 <= weight_decay < float("inf")),
        ("records", records, "at least 2", records >= 2),
    ):
        if not fine:
            raise ValueError(f"{name} is {value}; it must be {allowed}")
