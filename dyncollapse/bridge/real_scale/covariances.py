"""Part 3: Sigma0 and Sigma1 of many samples, blockwise, against the matrix products they cannot do without."""

import torch
from torch import Tensor

from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.timing import peak_memory, seconds_per_call
from dyncollapse.model._blocks import block_sizes
from dyncollapse.model.covariance import blockwise_covariance, contrastive_covariance
from dyncollapse.model.losses import infonce_weights

OVER_PRODUCTS = 1.5  # the target
# Both sides in float32 against float64, over their norm: sums of products of numbers rounded to 6e-8 (measured: 2e-7 on
# CPUs).
AGREES = 1e-5


def measure(site: Site) -> PartResult:
    """Times of the function and of its products alone, and its distance from the dense form in float64 on the CPU."""
    scale, device = site.scale, site.device
    problem = samples(scale.samples, scale.dim, scale.embedding_dim, device)
    peak = peak_memory(device, lambda: blockwise_covariance(*problem))
    seconds = seconds_per_call(lambda: blockwise_covariance(*problem), device, scale.seconds, warm=0)
    x, x_pos, z, z_pos = problem
    products_seconds = seconds_per_call(lambda: products(x, x_pos, z, z_pos), device, scale.seconds)
    part = [rows[: scale.dense_samples] for rows in problem]
    got, (x, x_pos, z, z_pos) = blockwise_covariance(*part), (rows.cpu().double() for rows in part)
    dense = contrastive_covariance(x, x_pos, infonce_weights(z, z_pos, z_pos), x_pos)
    size = f"{scale.samples} samples, {scale.dim} dimensions"
    findings = [
        Finding(f"Sigma0 and Sigma1, {size}, float32", seconds, "s"),
        Finding("their matrix products alone", products_seconds, "s"),
        site.target("the first over the second", seconds / products_seconds, OVER_PRODUCTS, least=False),
        *(
            Finding(f"{name} against the dense form in float64, {len(x)} samples, over its norm", error, limit=AGREES)
            for name, error in (
                ("Sigma0", _distance(got.data, dense.data)),
                ("Sigma1", _distance(got.augmentation, dense.augmentation)),
            )
        ),
    ]
    if peak is not None:
        findings.append(Finding("most memory, inputs included", peak / 2**30, "GiB"))
    return PartResult(findings, {"seconds": seconds, "products_seconds": products_seconds, "peak_bytes": peak})


def samples(n: int, dim: int, embedding_dim: int, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
    """x, x', z, z' of so many samples, float32: z reads x through a random matrix; logits are of the order of 1."""
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(n, dim, generator=generator) for _ in range(2))
    layer = torch.randn(embedding_dim, dim, generator=generator) / (dim * embedding_dim) ** 0.5
    x_pos = x + noise / 10
    return tuple(rows.to(device) for rows in (x, x_pos, x @ layer.T, x_pos @ layer.T))


def products(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Five products of the function's shapes in its blocks: z y^T, B y, x^T (B y), shift^T (r shift) and y^T (c y)."""
    block, tile = block_sizes(len(x), x.itemsize, x.device)
    block = min(block, len(x))
    logits, moved = x.new_empty(block, len(x)), torch.empty_like(x[:block])
    h, augmentation = x.new_zeros(2, x.shape[1], x.shape[1])
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        b, b_y = logits[: rows.stop - start], moved[: rows.stop - start]
        torch.mm(z[rows], w.T, out=b)
        torch.mm(b, y, out=b_y)
        h.addmm_(x[rows].T, b_y)
        augmentation.addmm_(x[rows].T, x[rows])
    for start in range(0, len(x), tile):
        h.addmm_(y[start : start + tile].T, y[start : start + tile])
    return h, augmentation


def _distance(got: Tensor, exact: Tensor) -> float:
    return float((got.cpu() - exact).norm() / exact.norm())
