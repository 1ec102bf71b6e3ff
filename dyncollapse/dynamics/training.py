"""SGD on an ensemble of toy networks: one call trains all runs at once as batched matrices."""

import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics.ensemble import Ensemble, Rule
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory
from dyncollapse.model.networks import Weights, check_weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs

# Steps between two checks whether the weights have diverged: each check waits for the device. A rule of thumb.
LOOK = 64


class Diverged(RuntimeError):
    """SGD diverged: embeddings grew a million times beyond order 1, or beyond their start.

    Attributes:
        trajectory: What was recorded before.
        step: The first step at which a run had diverged.
        stable_lr: A smaller learning rate that stays bounded on the same data, or None if none was found.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> pairs = GaussianTask.block(2, 2, 8.0).sample(64, torch.Generator().manual_seed(0))
        >>> try:
        ...     train((torch.eye(2, dtype=torch.float64),), pairs, lr=1.0, steps=100)
        ... except Diverged as failure:
        ...     failure.stable_lr
        0.125
    """

    def __init__(self, trajectory: Trajectory, lr: float, step: int, stable_lr: float | None, checked: int) -> None:
        """Write the message; `checked` is the number of steps for which `stable_lr` stayed bounded."""
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
    threads: int | None = None,
) -> Trajectory:
    """Run SGD from `weights`, on a stream of batches or on one fixed set of pairs.

    Flow time is t = lr x steps, divided by (1 - momentum) for heavy-ball momentum. The paper uses plain SGD. On a CPU,
    runs with generators of their own are shared out over `threads`; single operations have fewer threads meanwhile.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        pairs: Batches (*runs, n, d). A stream must yield the same batches each time it is iterated, as PairStream does.
        lr: Learning rate.
        steps: Number of steps.
        objective: What is minimised; Eq. 2 unless given.
        biases: One tensor (*runs, out) per layer, or none.
        momentum: Heavy-ball momentum, as in torch.optim.SGD.
        weight_decay: Its product with the parameter is added to the gradient.
        records: About how many states are kept, evenly spaced in log step.
        progress: Called with (step, steps) about 200 times.
        threads: CPU threads that step runs at the same time, by default as many as PyTorch has. Where there are fewer
            than two parts of the runs per thread, each part has a thread of its own.

    Returns:
        The recorded states, each with the loss on the batch of its step.

    Raises:
        ValueError: For unusable settings, shapes or batches.
        Diverged: When the weights blow up, with what was recorded.
        Interrupted: On Ctrl-C, with what was recorded.

    References:
        Jing et al. 2022, Section 4; docs/explanation/beyond-the-paper.md, section 5g for momentum and weight decay.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 1, aug_strength=4.0)  # the second input is augmented beyond the threshold of 1
        >>> stream = task.stream(64, torch.Generator().manual_seed(0))
        >>> path = train((0.1 * torch.eye(2, dtype=torch.float64),), stream, lr=0.05, steps=400)
        >>> round(float(path.time[-1]), 6), (path.singular_values[-1] > 0.1).tolist()
        (20.0, [True, False])
    """
    check_weights(weights, biases)
    if isinstance(pairs, Iterator):
        raise ValueError("the batches come from an iterator, which ends after one use; give a list or a PairStream")
    _check_settings(lr, steps, momentum, weight_decay, records)
    started = clock.perf_counter()
    recorded, stride = {*record_steps(steps, records)}, max(1, steps // 200)
    looks = sorted({*recorded, *range(0, steps, LOOK), *range(0, steps, stride if progress else steps)})
    kept: list[tuple[int, list[Tensor], Tensor]] = []

    def start(rate: float) -> Ensemble:
        rule = Rule(rate, objective or Objective(), momentum, weight_decay)
        return Ensemble(weights, biases, pairs, rule, threads)

    def trajectory() -> Trajectory:
        meta = {"dynamics": "sgd", "lr": lr, "steps": steps, "momentum": momentum, "weight_decay": weight_decay}
        meta |= {"seconds": clock.perf_counter() - started}
        return _trajectory(kept, lr / (1 - momentum), len(weights), meta)

    try:
        with start(lr) as ensemble:
            for step in _bounded(ensemble, looks):
                if step in recorded:
                    kept.append((step, ensemble.parameters(), ensemble.loss()))
                if progress and (step % stride == 0 or step == steps):
                    progress(step, steps)
        if kept[-1][0] == steps:
            return trajectory()
        with start(lr) as again:
            step = max(_bounded(again, range(steps)))
        # A stable rate has to survive well beyond the step at which this one failed.
        checked = min(steps, 4 * step + 100)
        stable_lr = _stable_learning_rate(start, lr, checked)
    except KeyboardInterrupt:
        raise Interrupted(trajectory()) from None
    raise Diverged(trajectory(), lr, step + 1, stable_lr, checked)


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


def _stable_learning_rate(start: Callable[[float], Ensemble], lr: float, checked: int) -> float | None:
    """Halve the rate until it and the one before both survive `checked` steps: stable, with a factor 2 to spare."""
    survived = False
    for halvings in range(1, 200):  # a rate that is far too large fails within a few steps
        trial = lr / 2**halvings
        with start(trial) as ensemble:
            before, survived = survived, checked in _bounded(ensemble, [*range(0, checked, LOOK), checked])
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
