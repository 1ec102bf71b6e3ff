"""How much memory work takes at least, and how much there is, before anything is allocated."""

import itertools
import os
from contextlib import suppress
from pathlib import Path

import torch

from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration

# What a process keeps of a simulation, in states: SGD's weights and gradients; SciPy's DOP853 has 16 stages beside its
# state; and of every dynamics its record, at most as many states as `training.record_steps` gives.
SGD_STATES, FLOW_STATES, RECORDS = 2, 17, 64
# Samples that a simulation is judged by (`simulation.PROBE_SAMPLES`), two views of each.
PROBES = 2 * 20_000
MEMINFO = Path("/proc/meminfo")
# Limits of a container, and what it has used: of control groups of version 2 and of version 1.
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def check_room(needed: float, device: torch.device | str, what: str, advice: str) -> None:
    """Refuse what cannot fit, before it is tried.

    Args:
        needed: Bytes that it takes at least.
        device: Where they would be.
        what: What takes them, as the subject of a sentence.
        advice: What to do, with names of settings in backticks.

    Raises:
        SettingError: One line that says how much it would take and how much there is.

    Example:
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
    """Bytes of cached files, which a container counts as used and gives up when asked."""
    with suppress(OSError, ValueError):
        words = (group / "memory.stat").read_text().split()
        return sum(int(words[words.index(name) + 1]) for name in ("active_file", "inactive_file"))
    return 0


def simulation_bytes(configuration: Configuration) -> float:
    """Bytes that a simulation takes at least: samples, weights, softmax weights and records, in its largest phase.

    Args:
        configuration: Its settings.

    Returns:
        Bytes; a lower bound.

    Example:
        >>> simulation_bytes(Configuration(dim=10_000)) > 100 * 2**30
        True
    """
    runs, n, widths = configuration.runs, configuration.batch_size, configuration.widths
    size = 4 if configuration.dtype == "float32" else 8
    layers = runs * sum(a * b for a, b in itertools.pairwise(widths))
    batch = runs * n * max(widths)
    common = size * (layers + PROBES * configuration.dim + 2 * configuration.dim**2)
    # A CPU takes the softmax run by run where all of them are too large for a cache.
    softmax = (1 if configuration.device == "cpu" else runs) * n**2
    phases = {
        "sgd": size * (SGD_STATES * layers + 2 * batch + softmax + runs * configuration.pool * configuration.dim),
        "flow": 8 * (FLOW_STATES * layers + 2 * configuration.flow_batches * batch + softmax),
        # Run by run, with the work array in which LSODA has room for a Jacobian.
        "population": 8 * (layers / runs) ** 2,
    }
    recorded = configuration.dynamics if configuration.steps >= 2 * RECORDS else ()
    records = sum(RECORDS * layers * (size if name == "sgd" else 8) for name in recorded)
    return common + records + max(phases[name] for name in configuration.dynamics)
