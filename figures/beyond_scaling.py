"""Beyond the paper: time and memory of an SGD step against batch size, dimension, depth and runs, and that of flows."""

import platform
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from figure import Result, Whole, claim, drawn_with, like, number, plt, record
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dyncollapse import (
    GaussianTask,
    Objective,
    Pairs,
    Trajectory,
    gaussian_init,
    population_flow,
    sample_flow,
    stack_pairs,
)
from dyncollapse.plotting import PALETTE

FIRST = {"batch size": 16, "dimension": 8, "depth": 1, "runs": 1}  # smallest sizes
BASE = {"batch size": 128, "dimension": 16, "depth": 1, "runs": 8}
# Largest exponents of time and memory allowed for each size. The matrix products take N^2 d + N d^2 + depth d^3 in time
# and N^2 + N d + depth d^2 in memory, both times the runs.
MOST = {"batch size": (2, 2), "dimension": (3, 2), "depth": (1, 1), "runs": (1, 1)}
LABELS = {"batch size": "batch size $N$", "dimension": "dimension $d$", "depth": "layers", "runs": "runs at once"}
# Flows of one run to FLOW_TIME; the sample flow on FLOW_BATCHES of FLOW_SAMPLES pairs.
FLOW_BASE, FLOW_TIME, FLOW_BATCHES, FLOW_SAMPLES = {"dimension": 8, "depth": 2}, 100, 2, 64
FLOWS = {"population, CVODE": "CVODE", "population, LSODA": "LSODA", "sample, DOP853": "DOP853"}
# LSODA's Jacobian of more weights takes longer than all the rest of the figure.
LSODA_WEIGHTS = 600


@record
class Options:
    """Parameters of the measurement; sizes double up to the largest."""

    batch_size: Whole = number(2048, "Largest batch size N.", low=64, high=2**14, unit="pairs")
    dim: Whole = number(512, "Largest dimension of a step.", low=32, high=1024, unit="dimensions")
    depth: Whole = number(64, "Largest number of layers of a step.", low=4, high=256, unit="layers")
    runs: Whole = number(512, "Largest number of runs at once.", low=4, high=4096, unit="runs")
    flow_dim: Whole = number(64, "Largest dimension of a flow.", low=16, high=128, unit="dimensions")
    flow_depth: Whole = number(5, "Largest number of layers of a flow.", low=3, high=8, unit="layers")
    repeats: Whole = number(5, "Times of each step, of which the best counts.", low=1, high=100)
    seed: Whole = like("seed", 0)

    def sizes(self, name: str) -> list[int]:
        """Sizes of a step from the smallest, each twice the one before."""
        last = {"batch size": self.batch_size, "dimension": self.dim, "depth": self.depth, "runs": self.runs}[name]
        return [FIRST[name] * 2**e for e in range((last // FIRST[name]).bit_length())]

    @property
    def flow_sizes(self) -> dict[str, list[int]]:
        """Sizes of flows."""
        return {
            "dimension": [2**e for e in range(2, self.flow_dim.bit_length())],
            "depth": list(range(1, self.flow_depth + 1)),
        }


@drawn_with(Options, batch_size=128, dim=64, depth=8, runs=16, flow_dim=16, flow_depth=3, repeats=1)
def draw(options: Options) -> Result:
    """Draw time, arithmetic and peak memory of one step against each size, and the time of flows."""
    figure = plt.figure(figsize=(7.2, 5.9))
    steps, below = figure.subfigures(2, 1, height_ratios=(3.8, 2.1))
    axes = steps.subplots(2, 4, sharey="row")
    rows, exponents = [], []
    for column, name in enumerate(BASE):
        sizes = options.sizes(name)
        measured = []
        for size in sizes:
            step, counted = step_of(BASE | {name: size}, options.seed)
            measured.append((seconds(step, options.repeats), arithmetic(counted), peak_memory(counted)))
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
        upper.loglog(sizes, 1e3 * spent, "o-", color=PALETTE[0], label=f"time: {time_slope:.2f}")
        upper.loglog(
            sizes, 1e3 * spent[-1] * flops / flops[-1], "--", color=PALETTE[6], label=f"arithmetic: {flop_slope:.2f}"
        )
        lower.loglog(sizes, held / 2**20, "o-", color=PALETTE[1], label=f"memory: {memory_slope:.2f}")
        lower.set_xlabel(LABELS[name])
        for ax in (upper, lower):
            ax.legend(loc="upper left", handlelength=1.4)
    flows = below.subplots(1, 2, sharey=True)
    flow_rows, flow_exponents = draw_flows(flows, options)
    axes[0, 0].set_ylabel("one step (ms)")
    axes[1, 0].set_ylabel("peak beside parameters (MiB)")
    for ax in axes[:, 0]:
        low, high = ax.get_ylim()
        ax.set_ylim(low, 8 * high)  # room for the legends
    for letter, ax in zip("abcdefghij", [*axes.flat, *flows], strict=True):
        ax.set_title(f"({letter})", loc="left")
    base = ", ".join(f"{name} {size}" for name, size in BASE.items())
    return Result(
        figure,
        rows + flow_rows,
        f"""(a) to (h): one SGD step under Eq. 2 (draw a fresh batch, differentiate in closed form) on one core in float32, seed {options.seed}: best of
{options.repeats} times. The arithmetic of the matrix products, scaled to the time of the largest size, and the peak memory of all that PyTorch
holds beside parameters are those of the same step differentiated automatically, since closed forms are compiled for small batches. One size
varies, the others are {base}. Exponents are fitted to the upper half of the sizes; time / arithmetic / memory: {"; ".join(exponents)}.
[[Small steps take the time of their calls, whose number grows only with depth.]] Times are measured where the figure is drawn, and not asserted.
(i), (j): seconds of one core for one flow to t = {FLOW_TIME:g} in float64 at rtol 1e-8, once each: population flows by CVODE and by LSODA with its
exact dense Jacobian, up to {LSODA_WEIGHTS} weights, and the sample flow on {FLOW_BATCHES} batches of {FLOW_SAMPLES}; one size varies, the other is dimension {FLOW_BASE["dimension"]} or
{FLOW_BASE["depth"]} layers. Exponents over the upper half of the sizes: {flow_exponents}.
Processor: {processor()}.""",
        "the exponents of arithmetic and memory are at most those of N^2 d + N d^2 + depth d^3 and N^2 + N d + depth d^2, times the runs; CVODE and LSODA end at the same singular values, "
        "and what CVODE computes most often, velocities and products with the Jacobian, grows in number with an exponent below 1 in d.",
    )


def draw_flows(axes: np.ndarray, options: Options) -> tuple[list[dict[str, object]], str]:
    """Draw the seconds of flows against dimension and depth; return rows and the fitted exponents."""
    rows: list[dict[str, object]] = []
    exponents = []
    for method in FLOWS.values():  # the first flow of a process loads what is compiled
        flow(2, 1, method, options.seed)
    for ax, (name, values) in zip(axes, options.flow_sizes.items(), strict=True):
        ends: dict[tuple[str, int], torch.Tensor] = {}
        for color, (label, method) in zip(PALETTE[2:], FLOWS.items(), strict=False):
            taken, spent, calls = [], [], []
            for size in values:
                shape = FLOW_BASE | {name: size}
                if method == "LSODA" and shape["depth"] * shape["dimension"] ** 2 > LSODA_WEIGHTS:
                    continue
                started = time.process_time()
                path = flow(shape["dimension"], shape["depth"], method, options.seed)
                taken.append(size)
                spent.append(time.process_time() - started)
                calls.append(path.meta["evaluations"] + path.meta.get("jacobian_products", 0))
                ends[method, size] = path.singular_values[-1]
                rows.append({"against": f"{name}, flow {label}", "size": size, "seconds": spent[-1]})
            slope = exponent(taken, np.array(spent))
            ax.loglog(taken, spent, "o-", color=color, label=f"{label}: {slope:.2f}")
            exponents.append(f"{label}, in {name} {slope:.2f}")
            if (method, name) == ("CVODE", "dimension"):
                growth = exponent(taken, np.array(calls, dtype=float))
                claim(growth < 1, f"velocities and products of CVODE grow with exponent {growth:.2f} < 1 in d")
        for size in [size for method, size in ends if method == "LSODA"]:
            gap = float((ends["CVODE", size] - ends["LSODA", size]).abs().max() / ends["LSODA", size].max())
            claim(
                gap < 1e-5, f"{name} {size}: CVODE and LSODA differ by {gap:.1e} < 1e-5 of the largest singular value"
            )
        ax.set_xlabel(LABELS[name])
        ax.set_xticks(values, [str(size) for size in values])
        ax.minorticks_off()
        ax.legend(loc="upper left", handlelength=1.4)
    axes[0].set_ylabel("one flow (s)")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, 8 * high)
    return rows, "; ".join(exponents)


def flow(dim: int, depth: int, method: str, seed: int) -> Trajectory:
    """One flow from a start that does not depend on the method."""
    generator = torch.Generator().manual_seed(seed)
    weights, task = (
        gaussian_init([dim] * (depth + 1), generator, scale=1 / dim**0.5),
        GaussianTask.block(dim, dim // 2, 1.5),
    )
    if method != "DOP853":
        return population_flow(weights, task, FLOW_TIME, method=method)
    batches = [task.sample(FLOW_SAMPLES, generator) for _ in range(FLOW_BATCHES)]
    return sample_flow(weights, stack_pairs(batches), FLOW_TIME, method=method)


def processor() -> str:
    """The name of the processor, as the system tells it."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def step_of(sizes: dict[str, int], seed: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Functions that draw a batch and differentiate the loss on it: in closed form, and by PyTorch from its value."""
    dim, runs = sizes["dimension"], (sizes["runs"],)
    generator = torch.Generator().manual_seed(seed)
    weights = tuple(w.float() for w in gaussian_init([dim] * (sizes["depth"] + 1), generator, runs))
    task, objective = GaussianTask.block(dim, dim // 2, 1.5, dtype=torch.float32), Objective()

    def batch() -> Pairs:
        return task.sample(sizes["batch size"], generator, runs)

    def automatic() -> object:
        parameters = tuple(w.clone().requires_grad_() for w in weights)
        return torch.autograd.grad(objective.value(parameters, batch()).sum(), parameters)

    return lambda: objective.gradient(weights, batch()), automatic


def seconds(step: Callable[[], object], repeats: int) -> float:
    """Best time of a step."""
    step()
    times = []
    for _ in range(repeats):
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
    draw.main()
