"""Part 3: Sigma0 and Sigma1 of many samples, computed blockwise, against the time of their matrix products alone."""

import torch
from torch import Tensor

from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.timing import peak_memory, seconds_per_call
from dyncollapse.model._blocks import block_sizes
from dyncollapse.model.covariance import blockwise_covariance, contrastive_covariance
from dyncollapse.model.losses import infonce_weights

OVER_PRODUCTS = 1.5  # the target
# Relative error of Sigma0 and Sigma1 in float32, which rounds to 6e-8, against float64 (measured on CPUs: 2e-7).
AGREES = 1e-5


def measure(site: Site) -> PartResult:
    """Time the function and its matrix products alone, and compare it with the dense form in float64 on the CPU.

    Args:
        site: Where to work.

    Returns:
        Times, errors and memory.
    """
    scale, device = site.scale, site.device
    problem = samples(scale.samples, scale.dim, scale.embedding_dim, device)
    site.tell(f"Sigma0 and Sigma1 of {scale.samples} samples in {scale.dim} dimensions")
    peak = peak_memory(device, lambda: blockwise_covariance(*problem))
    seconds = seconds_per_call(lambda: blockwise_covariance(*problem), device, scale.seconds, warm=0)
    size = f"{scale.samples} samples, {scale.dim} dimensions"
    findings = [Finding(f"Sigma0 and Sigma1, {size}, float32", seconds, "s")]
    site.save(PartResult(findings))
    x, x_pos, z, z_pos = problem
    site.tell("their matrix products alone")
    products_seconds = seconds_per_call(lambda: products(x, x_pos, z, z_pos), device, scale.seconds)
    site.tell(f"the dense form of {scale.dense_samples} samples in float64 on the CPU")
    part = [rows[: scale.dense_samples] for rows in problem]
    got, (x, x_pos, z, z_pos) = blockwise_covariance(*part), (rows.cpu().double() for rows in part)
    dense = contrastive_covariance(x, x_pos, infonce_weights(z, z_pos, z_pos), x_pos)
    findings += [
        Finding("their matrix products alone", products_seconds, "s"),
        site.target("time over that of the products alone", seconds / products_seconds, OVER_PRODUCTS, least=False),
        *(
            Finding(
                f"relative error of {name}, {len(x)} samples, against the dense form in float64", error, limit=AGREES
            )
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
    """Draw x, x', z, z' in float32; z is a random matrix times x, and logits are of the order of 1.

    Args:
        n: Samples.
        dim: Dimension of x.
        embedding_dim: Dimension of z.
        device: Where the result is.

    Returns:
        x, x' (n, `dim`) and z, z' (n, `embedding_dim`).
    """
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(n, dim, generator=generator) for _ in range(2))
    layer = torch.randn(embedding_dim, dim, generator=generator) / (dim * embedding_dim) ** 0.5
    x_pos = x + noise / 10
    return tuple(rows.to(device) for rows in (x, x_pos, x @ layer.T, x_pos @ layer.T))


def products(x: Tensor, y: Tensor, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Compute five products with the function's shapes and blocks: z y^T, B y, x^T (B y), shift^T (r shift), y^T (c y).

    Args:
        x: Inputs of the anchors.
        y: Inputs of the positives.
        z: Embeddings of the anchors.
        w: Embeddings of the positives.

    Returns:
        Two matrices without meaning; only the time counts.
    """
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
