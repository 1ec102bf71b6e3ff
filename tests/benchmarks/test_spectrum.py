"""The spectrum of 50 000 embeddings of 2048 dimensions: ours against numpy's covariance followed by its SVD."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dyncollapse.diagnostics.moments import Moments
from dyncollapse.runtime.process import torch_threads

ROWS, DIM = 50_000, 2048
WAYS = ("numpy_svd", "numpy_values", "float64", "float32")

# In a process of its own: how far the highest memory use rises above the rows and everything that is loaded.
PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
from test_spectrum import embeddings, spectrum

def highest():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

spectrum(sys.argv[2], embeddings()[:4096, :64].contiguous())
z = embeddings()
before = highest()
spectrum(sys.argv[2], z)
print((highest() - before) // 1024)
"""


def embeddings():
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, DIM + 1) ** -0.5
    return torch.randn(ROWS, DIM, generator=generator).mul_(scales).add_(1)


def spectrum(way, z):
    """Eigenvalues of the covariance over n - 1, the way that people do it, and ours."""
    if way.startswith("numpy"):
        # As in the published scripts: singular vectors, which the name numpy_svd stands for, and all.
        cov = np.cov(z.numpy(), rowvar=False)
        return np.linalg.svd(cov)[1] if way == "numpy_svd" else np.linalg.svd(cov, compute_uv=False)
    moments = Moments(z.shape[1], fast=way == "float32")
    moments.update(z)
    return moments.spectrum().numpy() * (len(z) / (len(z) - 1))


@pytest.fixture(scope="module")
def z():
    return embeddings()


@pytest.fixture(scope="module")
def expected(z):
    return spectrum("numpy_values", z)


@pytest.fixture
def threads():
    """As many as the BLAS of numpy and scipy take from the environment."""
    with torch_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))):
        yield torch.get_num_threads()


def peak_megabytes(way):
    command = [sys.executable, "-c", PEAK, os.path.dirname(__file__), way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.benchmark(group="spectrum")
@pytest.mark.parametrize("way", WAYS)
def test_spectrum(benchmark, way, z, expected, threads):
    values = benchmark.pedantic(spectrum, (way, z), rounds=3)
    benchmark.extra_info.update(threads=threads, peak_megabytes=peak_megabytes(way))
    tolerance = 1e-6 if way == "float32" else 1e-12
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * float(expected[0]))
