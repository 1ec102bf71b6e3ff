"""What a `Monitor` has summed as tensors of fixed shape, for frameworks that store and gather tensors."""

import random

import torch
from torch import Tensor

from dyncollapse.diagnostics.moments import Moments
from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.reservoir import Reservoir
from dyncollapse.diagnostics.split_moments import SplitMoments
from dyncollapse.diagnostics.view_moments import ViewMoments

NO_KEY = 2.0  # keys of rows are below 1
SUMS = ("count", "origin", "offset", "scatter")

State = dict[str, Tensor]


def empty_state(dim: int, others: int, sample: int, dtype: torch.dtype) -> State:
    """Return the state of a monitor without rows.

    Args:
        dim: Number of dimensions d.
        others: Number of views beside the first.
        sample: Number of rows of each view that are kept.
        dtype: Format of these rows.

    Returns:
        Tensors by name: for each half of the samples and each of its m sums, `count` (halves, m), `origin` and `offset`
        (halves, m, d) and `scatter` (halves, m, d, d); `keys` (sample,) and `rows` (1 + others, sample, d).
    """
    sums = (2 if others else 1, 1 + 2 * others + (2 if others > 1 else 0))
    return {
        "count": torch.zeros(sums, dtype=torch.int64),
        "origin": torch.zeros(*sums, dim, dtype=torch.float64),
        "offset": torch.zeros(*sums, dim, dtype=torch.float64),
        "scatter": torch.zeros(*sums, dim, dim, dtype=torch.float64),
        "keys": torch.full((sample,), NO_KEY, dtype=torch.float64),
        "rows": torch.zeros(1 + others, sample, dim, dtype=dtype),
    }


def restore(monitor: Monitor, state: State, rank: int) -> None:
    """Give a monitor the sums of a state, whose large tensors it changes in place when rows are added.

    Random choices then depend on the seed, the rank and the number of rows so far, so a state needs no generator.

    Args:
        monitor: A monitor with the options that the state was made for.
        state: Tensors as from `empty_state`.
        rank: Number of the process whose rows these are.
    """
    others = len(state["rows"]) - 1
    halves = [
        ViewMoments.restored([Moments.restored(one, fast=monitor.fast) for one in zip(*half, strict=True)], others)
        for half in zip(*(state[name] for name in SUMS), strict=True)
    ]
    if not others:
        halves.append(ViewMoments(halves[0].each[0].dim, 0, fast=monitor.fast, device=state["scatter"].device))
    monitor.sums = SplitMoments.restored((halves[0], halves[1]), fast=monitor.fast)
    monitor.dtype = state["rows"].dtype
    draw = random.Random(f"{monitor.seed} {rank} {monitor.sums.count}").getrandbits
    seed = draw(62)  # the same for all views, so that the same rows of each are kept
    keys = state["keys"].cpu()
    monitor.reservoirs = [Reservoir.restored(buffer, keys[keys < 1], seed) for buffer in state["rows"]]
    monitor.coin = torch.Generator().manual_seed(draw(62))


def stored(monitor: Monitor, state: State) -> State:
    """Return the state of a monitor that `restore` gave the sums of `state`, and that has had rows since."""
    assert monitor.sums is not None
    for half, rows in enumerate(monitor.sums.sum_rows()[: len(state["count"])]):
        for number, moments in enumerate(rows.all):
            for name, tensor in zip(SUMS[:3], moments.tensors(), strict=False):  # the scatter was changed in place
                state[name][half, number] = tensor
    keys = monitor.reservoir.keys
    state["keys"][: len(keys)] = keys.to(state["keys"].device)
    return state
