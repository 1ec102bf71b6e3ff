"""Sigma0 and Sigma1 without an N x N array: the whole function against the matrix products it cannot do without."""

import pytest
import torch

from dyncollapse.bridge.real_scale.covariances import products, samples
from dyncollapse.model.covariance import blockwise_covariance

SAMPLES, EMBEDDED, DIM = 10_000, 128, 2048

pytestmark = [
    pytest.mark.benchmark(group="blockwise covariance"),
    pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str),
]


def problem(dtype):
    return tuple(rows.to(dtype) for rows in samples(SAMPLES, DIM, EMBEDDED))


def test_blockwise_covariance(benchmark, dtype):
    got = benchmark.pedantic(blockwise_covariance, problem(dtype), rounds=3)
    assert torch.isfinite(got.force).all()
    assert float(got.data.trace()) > float(got.augmentation.trace()) > 0


def test_its_matrix_products_alone(benchmark, dtype):
    benchmark.pedantic(products, problem(dtype), rounds=3)
