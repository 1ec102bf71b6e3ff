"""Sigma0 and Sigma1 without an N x N array: the whole function against the matrix products it cannot do without."""

import pytest
import torch

from dyncollapse.covariance import BLOCK_BYTES, TILE, blockwise_covariance

SAMPLES, EMBEDDED, DIM = 10_000, 128, 2048

pytestmark = [
    pytest.mark.benchmark(group="blockwise covariance"),
    pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str),
]


def problem(dtype):
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(SAMPLES, DIM, generator=generator, dtype=dtype) for _ in range(2))
    p = torch.randn(EMBEDDED, DIM, generator=generator, dtype=dtype) / DIM**0.5
    x_pos = x + noise / 10
    return x, x_pos, x @ p.T, x_pos @ p.T


def products(x, y, z, w):
    """z y^T, B y, x^T (B y), shift^T diag(r) shift and y^T diag(c) y: five shapes, nothing else."""
    block = BLOCK_BYTES // (SAMPLES * x.itemsize)
    logits, moved = x.new_empty(block, SAMPLES), x.new_empty(block, DIM)
    h, augmentation = x.new_zeros(2, DIM, DIM)
    for start in range(0, SAMPLES, block):
        rows = slice(start, min(start + block, SAMPLES))
        b, b_y = logits[: rows.stop - start], moved[: rows.stop - start]
        torch.mm(z[rows], w.T, out=b)
        torch.mm(b, y, out=b_y)
        h.addmm_(x[rows].T, b_y)
        augmentation.addmm_(x[rows].T, x[rows])
    for start in range(0, SAMPLES, TILE):
        h.addmm_(y[start : start + TILE].T, y[start : start + TILE])
    return h, augmentation


def test_blockwise_covariance(benchmark, dtype):
    got = benchmark.pedantic(blockwise_covariance, problem(dtype), rounds=3)
    assert torch.isfinite(got.force).all()
    assert float(got.data.trace()) > float(got.augmentation.trace()) > 0


def test_its_matrix_products_alone(benchmark, dtype):
    benchmark.pedantic(products, problem(dtype), rounds=3)
