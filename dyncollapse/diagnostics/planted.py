"""Synthetic embeddings with a known answer, to test a diagnosis of collapse."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

HALF = 0.5  # data variance for which one-sided Eq. 2 collapses a mode at an augmentation variance of 1


@dataclass(frozen=True, eq=False)
class Planted:
    """Embeddings with a known answer: arguments for `diagnose`, and what the report must say.

    Attributes:
        name: Name of the case.
        remark: What is special about it.
        z: Embeddings, a row per sample.
        collapsed: Number of collapsed dimensions.
        mechanism: Value of `Verdict.mechanism`.
        fate: Value of the fate of the last dimension.
        others: Further arguments of `diagnose`: positives, inputs, input_positives, views, input_dim.

    Examples:
        >>> from dyncollapse import diagnose
        >>> case = next(case for case in planted_cases(samples=1000) if case.name == "transient")
        >>> report = diagnose(case.z, **case.others)
        >>> report.collapsed == case.collapsed, report.verdict.mechanism == case.mechanism
        (True, True)
    """

    name: str
    remark: str
    z: Float[Tensor, "n d"]
    collapsed: int
    mechanism: str
    fate: str
    others: dict[str, Any] = field(default_factory=dict)


def planted_cases(seed: int = 0, samples: int = 4000) -> list[Planted]:
    """Draw all cases; each has its own generator, so none depends on the others.

    Args:
        seed: Seed of the draws.
        samples: Number of rows of each case, except of the cases about few samples. Below about 600 rows the mechanisms
            cannot be distinguished.

    Returns:
        The cases, always in the same order.

    References:
        docs/explanation/diagnostics.md, section 6 (the report beside the usual measures).

    Examples:
        >>> case = planted_cases(samples=1000)[0]
        >>> case.name, tuple(case.z.shape), case.collapsed
        ('healthy', (1000, 64), 0)
    """
    makers = (
        _healthy, _large_mean, _heavy_tail, _steep_tail, _suppression,
        _few_samples, _barely_enough, _repeated_rows,
        _hard_collapse, _hard_collapse_rounded, _seen_in_views, _negatively_correlated,
        _emptied, _hidden_emptied, _emptied_and_waiting, _on_the_threshold,
        _transient, _hidden_transient, _both,
        _narrow_inputs, _bottleneck, _narrow_and_augmented,
        _dominated, _constant_column, _bfloat16, _normalised, _point,
    )  # fmt: skip
    return [make(torch.Generator().manual_seed(100 * seed + i), samples) for i, make in enumerate(makers)]


def _healthy(g: Generator, n: int) -> Planted:
    z = _normal(g, n, 64) @ _rotation(g, 64)
    return Planted("healthy", "isotropic, every dimension in use", z, 0, "none", "alive")


def _large_mean(g: Generator, n: int) -> Planted:
    z = (30 + _normal(g, n, 64)).float()
    return Planted("large mean", "isotropic, a mean of 30 standard deviations in all columns", z, 0, "none", "alive")


def _heavy_tail(g: Generator, n: int) -> Planted:
    return _power_law("heavy tail", "variances j^-2, a power law: small ones, but no cliff anywhere", g, n, 2.0)


def _steep_tail(g: Generator, n: int) -> Planted:
    return _power_law("steep tail", "variances j^-3, down to 6e-8 of the largest: still no cliff", g, n, 3.0)


def _suppression(g: Generator, n: int) -> Planted:
    # The rest point of two-sided Eq. 2 under strong noise, p^2 = (2/3) s / (s + a)^2: low, and never zero.
    aug_var = torch.tensor([0.1] * 32 + [4.0] * 32)
    gain = torch.where(aug_var > 1, (2 / 3 * HALF) ** 0.5 / (HALF + aug_var), 1.0)
    remark = "half at the rest point of strong two-sided noise: low for good, but not collapsed"
    return _layer("suppression", remark, g, gain, _views(g, n, aug_var, "two-sided"), (0, "none", "alive"))


def _few_samples(g: Generator, _n: int) -> Planted:
    return Planted("few samples", "100 samples of 256 isotropic dimensions", _normal(g, 100, 256), 0, "none", "unseen")


def _barely_enough(g: Generator, _n: int) -> Planted:
    remark = "272 samples of 256 isotropic dimensions: sample variances from 1e-3 to 4"
    return Planted("barely enough samples", remark, _normal(g, 272, 256), 0, "none", "alive")


def _repeated_rows(g: Generator, n: int) -> Planted:
    distinct = _normal(g, 40, 64)
    remark = "40 distinct samples, repeated: 64 isotropic dimensions, of which they span 39"
    return Planted("repeated rows", remark, distinct.repeat(n // 40, 1).float(), 0, "none", "unseen")


def _hard_collapse(g: Generator, n: int) -> Planted:
    gain, views = _beyond_threshold(g, n, blind=0.0)
    remark = "48 of 64 inputs augmented beyond the threshold, the layer blind to them: only the inputs tell why"
    return _layer("hard collapse", remark, g, gain, views, (48, "strong-augmentation", "dead"))


def _hard_collapse_rounded(g: Generator, n: int) -> Planted:
    gain, views = _beyond_threshold(g, n, blind=1e-4)
    remark = "the same, not quite blind, but everything saved as bfloat16: what is left is below its rounding"
    return _layer(
        "hard collapse, bfloat16", remark, g, gain, views, (48, "strong-augmentation", "dead"), dtype=torch.bfloat16
    )


def _seen_in_views(g: Generator, n: int) -> Planted:
    gain, views = _beyond_threshold(g, n, blind=1e-3)
    remark = "the same, still at a thousandth: both views of the embeddings tell why, without inputs"
    return _layer(
        "hard collapse, views alone", remark, g, gain, views, (48, "strong-augmentation", "dead"), inputs=False
    )


def _negatively_correlated(g: Generator, n: int) -> Planted:
    # Two-sided rho = 1 - correlation: the only way in which two-sided views collapse (theory 5c).
    correlation = torch.tensor([0.8] * 32 + [-0.8] * 16).double()
    first, fresh = HALF**0.5 * _normal(g, 2, n, 48)
    second = correlation * first + (1 - correlation.square()).sqrt() * fresh
    gain = torch.where(correlation > 0, 1.0, 0.0)
    remark = "two-sided views with correlation -0.8 along 16 of 48 inputs, to which the layer is blind"
    views = (first, second, "two-sided")
    return _layer("negatively correlated", remark, g, gain, views, (16, "strong-augmentation", "dead"))


def _emptied(g: Generator, n: int) -> Planted:
    gain, signal = torch.tensor([1.0] * 40 + [4e-3] * 60), torch.tensor([1.0] * 40 + [0.0] * 60)
    remark = "two views drawn alike: 60 of 100 directions hold only augmentation, rho = 1"
    answer = (60, "strong-augmentation", "suppressed")
    return _layer("emptied", remark, g, gain, _alike(g, n, signal), answer, inputs=False)


def _hidden_emptied(g: Generator, n: int) -> Planted:
    gain, signal = torch.tensor([1.0] * 16 + [1e-9] * 16), torch.tensor([3.0] * 16 + [0.0] * 16)
    remark = "the same, too small for float32: the views of the last layer's inputs share no signal there"
    answer = (16, "strong-augmentation", "suppressed")
    return _layer("emptied, below rounding", remark, g, gain, _alike(g, n, signal), answer, dtype=torch.float32)


def _emptied_and_waiting(g: Generator, n: int) -> Planted:
    gain = torch.tensor([1.0] * 24 + [4e-3] * 8 + [2e-3] * 8)
    signal = torch.tensor([2.0] * 32 + [0.0] * 8)
    remark = "two views drawn alike: 8 small dimensions share their signal and wait, 8 are emptied"
    answer = (16, "both", "suppressed")
    return _layer("emptied and waiting", remark, g, gain, _alike(g, n, signal), answer, inputs=False)


def _on_the_threshold(g: Generator, n: int) -> Planted:
    gain, aug_var = torch.tensor([1.0] * 24 + [1e-3] * 8), torch.tensor([0.1] * 24 + [1.0] * 8)
    remark = "one-sided, 8 dimensions exactly at the threshold rho = 1: samples cannot tell dead from waiting"
    answer = (8, "unknown", "unexplained")
    return _layer("on the threshold", remark, g, gain, _views(g, n, aug_var), answer, inputs=False)


def _narrow_inputs(g: Generator, n: int) -> Planted:
    remark = "a layer from 8 inputs to 16 outputs: 8 dimensions are missing whatever the augmentation"
    views = _views(g, n, torch.full((8,), 0.1))
    return _layer("narrow inputs", remark, g, torch.ones(8), views, (8, "width", "structural"), outputs=16)


def _bottleneck(g: Generator, n: int) -> Planted:
    case = _narrow_inputs(g, n)
    others = {"positives": case.others["positives"], "views": "one-sided", "input_dim": 8}
    remark = "the same without its inputs, only their number: a bottleneck of 8 units before the last layer"
    return Planted("bottleneck", remark, case.z, 8, "width", "structural", others)


def _narrow_and_augmented(g: Generator, n: int) -> Planted:
    gain, aug_var = torch.tensor([1.0] * 8 + [0.0] * 4), torch.tensor([0.1] * 8 + [2.0] * 4)
    remark = "12 inputs, 4 beyond the threshold, and 16 outputs: 4 dead, 4 for want of width"
    answer = (8, "strong-augmentation", "structural")
    return _layer("narrow and augmented", remark, g, gain, _views(g, n, aug_var), answer, outputs=16)


def _transient(g: Generator, n: int) -> Planted:
    gain, aug_var = torch.tensor([1.0] * 24 + [1e-3] * 8), torch.full((32,), 0.1)
    remark = "8 dimensions still small, though data beats augmentation in all: they will escape"
    return _layer("transient", remark, g, gain, _views(g, n, aug_var), (8, "implicit-regularization", "waiting"))


def _hidden_transient(g: Generator, n: int) -> Planted:
    gain, aug_var = torch.tensor([1.0] * 24 + [1e-9] * 8), torch.full((32,), 0.1)
    remark = "the same, too small for float32: the last layer's inputs show that they will escape"
    return _layer(
        "transient, below rounding", remark, g, gain, _views(g, n, aug_var), (8, "implicit-regularization", "waiting"),
        dtype=torch.float32,
    )  # fmt: skip


def _both(g: Generator, n: int) -> Planted:
    gain = torch.tensor([1.0] * 16 + [2e-3] * 8 + [1e-3] * 8)
    aug_var = torch.tensor([0.1] * 24 + [1.5] * 8)
    remark = "8 dimensions dead, 8 waiting, and their variances alone do not tell which"
    return _layer("both mechanisms", remark, g, gain, _views(g, n, aug_var), (16, "both", "dead"))


def _dominated(g: Generator, n: int) -> Planted:
    deviations = torch.tensor([1e3**0.5] + [1.0] * 40 + [1e-3] * 23)
    remark = "one variance of 1000, 40 of 1 and 23 of 1e-6, well above rounding; no views"
    return Planted(
        "one dominates", remark, _normal(g, n, 64) * deviations @ _rotation(g, 64), 23, "unknown", "unexplained"
    )


def _constant_column(g: Generator, n: int) -> Planted:
    z = _normal(g, n, 64)
    z[:, 5] = 0.7
    return Planted("constant column", "one unit of 64 never moves", z.float(), 1, "unknown", "unresolved")


def _bfloat16(g: Generator, n: int) -> Planted:
    z = _normal(g, n, 32) @ _rotation(g, 64)[:32]
    remark = "rank 32 of 64, rounded to bfloat16 and saved as float32: rounding fills the rest"
    return Planted("bfloat16 floor", remark, z.bfloat16().float(), 32, "unknown", "unresolved")


def _normalised(g: Generator, n: int) -> Planted:
    z = _normal(g, n, 16) @ _rotation(g, 128)[:16]
    z = torch.nn.functional.normalize(z, dim=1).float()
    return Planted("normalised, rank 16", "on the sphere in 16 of 128 dimensions", z, 112, "unknown", "unresolved")


def _point(g: Generator, n: int) -> Planted:
    z = (_normal(g, 64) + 1e-8 * _normal(g, n, 64)).float()
    return Planted("one point", "complete collapse: what varies is float32 rounding", z, 64, "unknown", "unresolved")


def _power_law(name: str, remark: str, g: Generator, n: int, exponent: float) -> Planted:
    d = 256
    z = _normal(g, n, d) * torch.arange(1, d + 1).double().pow(-exponent / 2) @ _rotation(g, d)
    return Planted(name, remark, z, 0, "none", "alive" if n > d else "unseen")


def _beyond_threshold(g: Generator, n: int, blind: float) -> tuple[Tensor, tuple[Tensor, Tensor, str]]:
    """Return gains of a layer that is nearly blind to 48 of its 64 inputs, and views with rho = 2 along these."""
    gain, aug_var = torch.tensor([1.0] * 16 + [blind] * 48), torch.tensor([0.0] * 16 + [2.0] * 48)
    return gain, _views(g, n, aug_var)


def _views(g: Generator, n: int, aug_var: Tensor, views: str = "one-sided") -> tuple[Tensor, Tensor, str]:
    """Return two views of inputs N(0, I/2) under additive noise, and their convention: one-sided rho = aug_var."""
    clean, d = HALF**0.5 * _normal(g, n, len(aug_var)), len(aug_var)
    noise = aug_var.double().sqrt() * _normal(g, 2, n, d)
    return clean + (noise[0] if views == "two-sided" else 0), clean + noise[1], views


def _alike(g: Generator, n: int, signal: Tensor) -> tuple[Tensor, Tensor, str]:
    """Return two independent views of one distribution: signal of these standard deviations, noise of variance 1."""
    shared = signal.double() * _normal(g, n, len(signal))
    first, second = shared + _normal(g, 2, n, len(signal))
    return first, second, "two-sided"


def _layer(
    name: str,
    remark: str,
    g: Generator,
    gain: Tensor,
    views: tuple[Tensor, Tensor, str],
    answer: tuple[int, str, str],
    *,
    dtype: torch.dtype = torch.float64,
    inputs: bool = True,
    outputs: int | None = None,
) -> Planted:
    """Return embeddings of one linear layer with these singular values, in both views, with its inputs if `inputs`."""
    inward, outward = _rotation(g, len(gain)), _rotation(g, outputs or len(gain))[: len(gain)]
    *pair, convention = views
    z, positives = ((view * gain @ outward).to(dtype) for view in pair)
    others = {"positives": positives, "views": convention}
    if inputs:
        others |= {
            name: (view @ inward).to(dtype) for name, view in zip(("inputs", "input_positives"), pair, strict=True)
        }
    return Planted(name, remark, z, *answer, others)


def _normal(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def _rotation(g: Generator, d: int) -> Tensor:
    return torch.linalg.qr(_normal(g, d, d)).Q
