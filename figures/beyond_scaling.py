"""Beyond the paper: time and memory of an SGD step against batch size, dimension, depth and runs."""

import time
import weakref
from collections.abc import Callable

import numpy as np
import torch
from figure import Result, claim, main, plt
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dyncollapse import GaussianTask, Objective, gaussian_init

SEED, REPEATS = 0, 5
BASE = {"batch size": 128, "dimension": 16, "depth": 1, "runs": 8}
# Largest exponents of time and memory allowed for each size. The matrix products take N^2 d + N d^2 + depth d^3 in time
# and N^2 + N d + depth d^2 in memory, both times the runs.
MOST = {"batch size": (2, 2), "dimension": (3, 2), "depth": (1, 1), "runs": (1, 1)}
LABELS = {"batch size": "batch size $N$", "dimension": "dimension $d$", "depth": "layers", "runs": "runs at once"}


def draw(quick: bool) -> Result:
    """Draw time, arithmetic and peak memory of one step against each size, with the others fixed."""
    last = {"batch size": 9, "dimension": 8, "depth": 5, "runs": 7} if quick else {"batch size": 11, "dimension": 9, "depth": 6, "runs": 9}  # fmt: skip
    first = {"batch size": 4, "dimension": 3, "depth": 0, "runs": 0}
    figure, axes = plt.subplots(2, 4, figsize=(7.2, 3.8), sharey="row")
    rows, exponents = [], []
    for column, name in enumerate(BASE):
        sizes = [2**e for e in range(first[name], last[name] + 1)]
        measured = []
        for size in sizes:
            step = step_of(BASE | {name: size})
            flops = arithmetic(step)
            measured.append((seconds(step), flops, peak_memory(step)))
            rows.append(
                {"against": name, "size": size} | dict(zip(("seconds", "flops", "bytes"), measured[-1], strict=True))
            )
        spent, flops, held = (np.array(values) for values in zip(*measured, strict=True))
        (time_slope, flop_slope, memory_slope) = (exponent(sizes, values) for values in (spent, flops, held))
        most_flops, most_memory = MOST[name]
        claim(
            flop_slope < most_flops + 0.02, f"{name}: arithmetic grows with exponent {flop_slope:.2f} <= {most_flops}"
        )
        claim(
            memory_slope < most_memory + 0.02, f"{name}: memory grows with exponent {memory_slope:.2f} <= {most_memory}"
        )
        exponents.append(f"{name} {time_slope:.2f} / {flop_slope:.2f} / {memory_slope:.2f}")
        upper, lower = axes[:, column]
        upper.loglog(sizes, 1e3 * spent, "o-", label=f"time: {time_slope:.2f}")
        upper.loglog(sizes, 1e3 * spent[-1] * flops / flops[-1], "k--", label=f"arithmetic: {flop_slope:.2f}")
        lower.loglog(sizes, held / 2**20, "o-", color="C1", label=f"memory: {memory_slope:.2f}")
        lower.set_xlabel(LABELS[name])
        for ax in (upper, lower):
            ax.legend(loc="upper left", handlelength=1.4)
    axes[0, 0].set_ylabel("one step (ms)")
    axes[1, 0].set_ylabel("peak beside parameters (MiB)")
    for ax in axes[:, 0]:
        low, high = ax.get_ylim()
        ax.set_ylim(low, 8 * high)  # room for the legends
    base = ", ".join(f"{name} {size}" for name, size in BASE.items())
    return Result(
        figure,
        rows,
        f"""One SGD step under Eq. 2 (draw a fresh batch, differentiate in closed form) on one core in float32, seed {SEED}: best of
{REPEATS} times; the arithmetic of its matrix products, scaled to the time of the largest size; and the peak memory of all that PyTorch
holds beside parameters. One size varies, the others are {base}. Exponents are fitted to
the upper half of the sizes; time / arithmetic / memory: {"; ".join(exponents)}.
Small steps take the time of their calls, whose number grows only with depth. Runs that do not fit into a cache together are taken a few
at a time, so that memory levels off. Times are measured where the figure is drawn, and not asserted. Asserted: the exponents of arithmetic and memory are at most those of
N^2 d + N d^2 + depth d^3 and N^2 + N d + depth d^2, times the runs.""",
    )


def step_of(sizes: dict[str, int]) -> Callable[[], object]:
    """A function that draws a batch and differentiates the loss on it."""
    dim, runs = sizes["dimension"], (sizes["runs"],)
    generator = torch.Generator().manual_seed(SEED)
    weights = tuple(w.float() for w in gaussian_init([dim] * (sizes["depth"] + 1), generator, runs))
    task, objective = GaussianTask.block(dim, dim // 2, 1.5, dtype=torch.float32), Objective()
    return lambda: objective.gradient(weights, task.sample(sizes["batch size"], generator, runs))


def seconds(step: Callable[[], object]) -> float:
    """Best time of a step."""
    step()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times)


def arithmetic(step: Callable[[], object]) -> int:
    """Floating-point operations of a step's matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_memory(step: Callable[[], object]) -> int:
    """Most bytes that the tensors made by a step hold at one time."""
    with LiveTensors() as live:
        step()
    return live.peak


class LiveTensors(TorchDispatchMode):
    """Adds up the storages that operations return, until each is freed."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, operation, _types, arguments=(), keywords=None):
        """Run the operation and count what it returns, once."""
        result = operation(*arguments, **keywords or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if (key := storage._cdata) not in self.held:
                    self.held[key] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, key, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return result


def exponent(sizes: list[int], values: np.ndarray) -> float:
    """Slope of log values against log sizes over the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


if __name__ == "__main__":
    main("beyond_scaling", draw)
