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
