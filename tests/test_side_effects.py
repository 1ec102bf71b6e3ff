"""Library calls leave the process as they find it: allocator, threads, signals, environment, filters, random states."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, gc, os, random, signal, warnings
import numpy, scipy.linalg, threadpoolctl, torch

allocator = []

class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "mallopt":
            allocator.append(name)
        return super().__getattr__(name)

ctypes.CDLL = Watched
torch.set_num_threads(3)
threadpoolctl.threadpool_limits(2, "blas")

def state():
    return {
        "threads": torch.get_num_threads(),
        "pools": sorted((pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "filters": [*warnings.filters],
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "random": (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "numbers": (torch.get_default_dtype(), torch.is_grad_enabled(), numpy.geterr()),
    }

import dyncollapse
from dyncollapse.sweeps.estimate import expected_seconds

task, generator = dyncollapse.GaussianTask.block(4, 2), torch.Generator().manual_seed(0)
weights = dyncollapse.gaussian_init([4, 4], generator, (2,))
calls = {
    "train": lambda: dyncollapse.train(weights, task.stream(8, generator, (2,)), lr=0.1, steps=5),
    "population_flow": lambda: dyncollapse.population_flow(weights, task, 1.0),
    "sample_flow": lambda: dyncollapse.sample_flow(weights, task.sample(8, generator, (2,)), 1.0),
    "mode_flow": lambda: dyncollapse.mode_flow([torch.ones(2)], torch.ones(2), 1.0),
    "frozen_flow": lambda: dyncollapse.frozen_flow(weights, torch.eye(4), 1.0),
    "expected_seconds": lambda: expected_seconds(dyncollapse.Configuration(dim=4, aug_dim=2, steps=5)),
}
for call in calls.values():
    call()  # imports what it needs
for name, call in calls.items():
    before = state()
    call()
    after = state()
    for kind in before:
        assert before[kind] == after[kind], (name, kind)
    assert not allocator, name
dyncollapse.recycle_freed_memory()
print(allocator.count("mallopt"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is set on Linux alone")
def test_library_calls_leave_the_process_as_it_was():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0  # the watch would have noticed
