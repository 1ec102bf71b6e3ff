"""How much memory a simulation takes at least, and how much is free, before anything is allocated."""

import itertools
import os
from contextlib import suppress
from pathlib import Path

import torch

from dyncollapse.dynamics.solver import cvode_is_installed
from dyncollapse.model.choices import SELF_DISTILLED
from dyncollapse.runtime.process import cores
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration

# Memory of the dynamics, in units of one set of weights. SGD: weights and gradients. Flow: the state and 16 stages of
# SciPy's DOP853. Population: 31 vectors of GMRES, and of CVODE the steps before and its work; 46 were measured. Every
# dynamics: its record, as many sets as `training.record_steps` gives at most.
SGD_STATES, FLOW_STATES, POPULATION_STATES, RECORDS = 2, 17, 40, 64
# Losses that hold a number for every pair of rows; the spectral loss does so for its value, which is recorded.
PAIRWISE = ("infonce", "dot", "ntxent", "spectral")
# Copies of a run's record that a flow has at its end, beside the record: those of its steps and of its states.
COPIES = 2
# Two views of each sample by which a simulation is judged (`build.PROBE_SAMPLES`).
PROBES = 2 * 20_000
MEMINFO = Path("/proc/meminfo")
# Limit of a container and its usage, in control groups of version 2 and of version 1.
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def check_room(needed: float, device: torch.device | str, what: str, advice: str) -> None:
    """Refuse work that cannot fit into memory, before it starts.

    Args:
        needed: Bytes that it takes at least.
        device: Where it would run.
        what: What needs the memory, the subject of the message.
        advice: What to do, with names of settings in backticks.

    Raises:
        SettingError: Where less memory is free; the message says how much is needed and free.

    Examples:
        >>> check_room(2.0**80, "cpu", "this grid", "lower `dim`")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        dyncollapse...SettingError: this grid takes at least 1.1e+15 GiB of memory, and ... are free; lower dim
    """
    free = free_memory(torch.device(device))
    if free is not None and needed > free:
        raise SettingError(f"{what} takes at least {_gib(needed)} of memory, and {_gib(free)} are free; {advice}")


def _gib(size: float) -> str:
    unit, scaled = ("GiB", size / 2**30) if size >= 0.1 * 2**30 else ("MiB", size / 2**20)
    return f"{scaled:.0f} {unit}" if 10 <= scaled < 1e6 else f"{scaled:.2g} {unit}"


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process may still use on a device; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    for limit, used in LIMITS:
        with suppress(OSError, ValueError):  # "max" is no limit
            found.append(int(limit.read_text()) - int(used.read_text()) + _reclaimable(used.parent))
    if not found and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(found)) if found else None


def _reclaimable(group: Path) -> int:
    """Bytes of cached files, which a container counts as used although it frees them on demand."""
    with suppress(OSError, ValueError):
        words = (group / "memory.stat").read_text().split()
        return sum(int(words[words.index(name) + 1]) for name in ("active_file", "inactive_file"))
    return 0


def simulation_bytes(configuration: Configuration) -> float:
    """A lower bound on the memory of a simulation: samples, weights, softmax weights and records.

    Args:
        configuration: The settings.

    Returns:
        Bytes in the largest of its phases.

    Examples:
        >>> simulation_bytes(Configuration(dim=10_000)) > 100 * 2**30
        True
    """
    runs, n, widths = configuration.runs, configuration.batch_size, configuration.layer_widths
    size = 4 if configuration.dtype == "float32" else 8
    layers = runs * sum(a * b for a, b in itertools.pairwise(widths))
    if configuration.loss in SELF_DISTILLED:  # a target, and a predictor
        layers = layers * (2 if configuration.loss == "byol" else 1) + runs * widths[-1] ** 2
    batch = runs * n * max(widths)
    common = size * (layers + PROBES * configuration.dim + 2 * configuration.dim**2)
    # On a CPU the softmax is computed run by run where that of all runs would not fit into a cache.
    softmax = (1 if configuration.device == "cpu" else runs) * n**2 if configuration.loss in PAIRWISE else 0
    kept = RECORDS if configuration.steps >= 2 * RECORDS else 0
    # The runs of a flow are integrated one by one, those of a sample flow on several threads. Then records are joined.
    run, joined = layers / runs, kept * layers
    threads = min(configuration.threads or cores(), runs) if configuration.device == "cpu" else 1
    flow = max(threads * ((FLOW_STATES + COPIES * kept) * run + softmax), joined)
    # LSODA, where CVODE cannot be installed, stores a Jacobian.
    population = POPULATION_STATES * run if cvode_is_installed() else run**2
    phases = {
        "sgd": size * (SGD_STATES * layers + 2 * batch + softmax + runs * configuration.pool * configuration.dim),
        "flow": 8 * (2 * configuration.flow_batches * batch + flow),
        "population": 8 * max(population + COPIES * kept * run, joined),
    }
    records = sum(kept * layers * (size if name == "sgd" else 8) for name in configuration.dynamics)
    return common + records + max(phases[name] for name in configuration.dynamics)
