import os

import cpuinfo
import pytest
import torch

from dyncollapse import recycle_freed_memory


@pytest.fixture(scope="session", autouse=True)
def allocator_of_the_commands():
    recycle_freed_memory()


@pytest.fixture(scope="session")
def processor():
    """The processor's name, the instructions that PyTorch uses on it, and the number of cores."""
    name = cpuinfo.get_cpu_info().get("brand_raw", "unknown")
    return {"name": name, "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}


@pytest.fixture(autouse=True)
def record_of_the_processor(request, processor):
    """Times mean little without the processor."""
    if "benchmark" in request.fixturenames:
        request.getfixturevalue("benchmark").extra_info["processor"] = processor


def pytest_terminal_summary(terminalreporter, config):
    """Below the table of times: what each benchmark measured besides, as the peers that ran in turns with ours."""
    session = getattr(config, "_benchmarksession", None)
    told = [bench for bench in getattr(session, "benchmarks", ()) if bench.extra_info]
    if told:
        terminalreporter.section("measured besides")
    for bench in told:
        facts = "; ".join(f"{name}: {value}" for name, value in bench.extra_info.items())
        terminalreporter.line(f"{bench.name}: median {bench.stats.median:.3g} s; {facts}")
