"""Values that were rounded to steps keep their count of collapsed dimensions, and get no cause from rounding."""

import pytest
import torch
from helpers.reference import normal, seeded

from dyncollapse import diagnose
from dyncollapse.diagnostics.steps import steps_of

DOUBLE, SINGLE = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps


def narrow(seed, views, n=1500, d=16, k=8):
    """Both views of k units in front of d outputs: the other dimensions hold rounding alone."""
    g = seeded(seed)
    layer, h = normal(g, k, d), normal(g, n, k)
    first = h + (0.5 * normal(g, n, k) if views == "two-sided" else 0)
    return first @ layer, (h + 0.5 * normal(g, n, k)) @ layer


def decimals(k):
    return lambda z: (z * 10**k).round() / 10**k


def digits(p):
    def rounded(z):
        unit = 10.0 ** (z.abs().log10().floor() + 1 - p)
        return (z / unit).round() * unit

    return rounded


def of_one_byte(z):
    return (z * (127 / z.abs().max())).round().to(torch.int8)


def between(z, low, high):
    scale = (high - low) / 255
    return ((z - low) / scale).round() * scale + low


ROUNDED = {
    "4 decimals": (decimals(4), "steps of 0.0001"),
    "2 decimals": (decimals(2), "steps of 0.01"),
    "decimals in float32": (lambda z: decimals(4)(z).float(), "steps of 0.0001"),
    "fixed point": (lambda z: (z * 256).round() / 256, "steps of 0.00391"),
    "twentieths": (lambda z: (z * 20).round() / 20, "steps of 0.05"),
    "int16": (lambda z: (100 * z).round().to(torch.int16), "whole numbers"),
    "int8": (of_one_byte, "whole numbers"),
    "int8 with a scale": (lambda z: (of_one_byte(z) * (z.abs().max() / 127)).float(), "steps of "),
    "bytes with offsets by column": (lambda z: between(z, z.amin(0), z.amax(0)).float(), "steps of "),
    "5 digits": (digits(5), "5 significant digits"),
}


@pytest.mark.parametrize("kind", ROUNDED)
@pytest.mark.parametrize("views", ["two-sided", "one-sided"])
def test_rounding_to_steps_is_no_augmentation(views, kind):
    rounded, name = ROUNDED[kind]
    for seed in range(3):
        z, positives = map(rounded, narrow(seed, views))
        report = diagnose(z, positives, views=views)
        assert report.verdict.fates == ["alive"] * 8 + ["unresolved"] * 8
        assert any(f"values are rounded to {name}" in line for line in report.warnings)
        assert any(f"before any rounding to {name}" in one.action for one in report.remedies)
        assert diagnose(z, positives, views=views, input_dim=8).verdict.mechanism == "width"


def test_a_view_rounded_more_coarsely_decides_no_cause_either():
    z, positives = narrow(0, "two-sided")
    report = diagnose(decimals(5)(z), decimals(2)(positives))
    assert report.verdict.fates == ["alive"] * 8 + ["unresolved"] * 8
    report = diagnose(decimals(5)(z) + 1e-4 * normal(seeded(1), *z.shape), decimals(2)(positives))
    assert report.verdict.fates == ["alive"] * 8 + ["unresolved"] * 8
    assert any("8 dimension(s) vary by less than 100 times" in line for line in report.warnings)


@pytest.mark.parametrize("kind", ["4 decimals", "int8"])
def test_rounded_inputs_show_no_silent_directions(kind):
    rounded, _ = ROUNDED[kind]
    x, x_pos = map(rounded, narrow(0, "two-sided"))
    layer = torch.eye(16, dtype=torch.float64)
    layer[:, 8:] = 0
    report = diagnose(x @ layer.to(x), x_pos @ layer.to(x), inputs=x.double(), input_positives=x_pos.double())
    assert report.verdict.fates == ["alive"] * 8 + ["unresolved"] * 8


def test_what_lies_far_above_the_steps_keeps_its_cause():
    g = seeded(0)
    signal = normal(g, 2000, 12) * torch.tensor([2.0] * 9 + [0.0] * 3)
    gain = torch.tensor([1.0] * 6 + [4e-3] * 6)
    z, positives = (decimals(5)((signal + normal(g, 2000, 12)) * gain) for _ in range(2))
    assert diagnose(z, positives).verdict.fates == ["alive"] * 6 + ["waiting"] * 3 + ["suppressed"] * 3


def signs(g, n):
    latent = normal(g, n, 16)
    return [(latent + 0.5 * normal(g, n, 16)).sign().to(torch.int8) for _ in range(2)]


def counts(mean):
    def drawn(g, n):
        rate = mean * (0.5 * normal(g, n, 16)).exp()
        return [torch.poisson(rate, generator=g).to(torch.int32) for _ in range(2)]

    return drawn


def thirds(g, n):
    kind = torch.randint(0, 3, (n, 16), generator=g)
    return [torch.where(torch.rand(n, 16, generator=g) < 0.1, (kind + 1) % 3, kind) * 0.7 for _ in range(2)]


def one_hot(g, n):
    label = torch.randint(0, 16, (n,), generator=g)
    label[:16] = torch.arange(16)
    other = torch.where(torch.rand(n, generator=g) < 0.1, (label + 1) % 16, label)
    return [torch.nn.functional.one_hot(one, 16) for one in (label, other)]


@pytest.mark.parametrize(
    ("drawn", "signal"),
    [(signs, 16), (counts(0.2), 0), (counts(3.0), 16), (counts(300.0), 16), (thirds, 16), (one_hot, 0)],
)
def test_few_distinct_values_are_exact(drawn, signal):
    z, positives = drawn(seeded(0), 2000)
    report = diagnose(z, positives)
    assert report.collapsed == 0
    assert not any("rounded" in line for line in report.warnings)
    assert report.measures["signal_rank"] >= signal


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (torch.arange(100) * 1000, 1000.0),
        (torch.arange(100).double() / 8 + 0.3, 0.125),
        (torch.arange(100).float().repeat(2) * 0.0371 - 1.7, 0.0371),
        (normal(seeded(0), 100), 0.0),
        (normal(seeded(0), 100).float(), 0.0),
        (normal(seeded(0), 10).repeat(10), 0.0),
        (torch.full((100,), 0.25), 0.0),
    ],
)
def test_steps_are_found_where_values_have_them(values, step):
    eps = SINGLE if values.dtype == torch.float32 else DOUBLE if values.is_floating_point() else 0.0
    found = steps_of(values[:, None], eps)
    assert found.fine == pytest.approx(step**2 / 12, rel=1e-4)
    assert found.fine == found.any


def test_each_column_has_its_own_step_and_a_few_values_are_not_fine():
    z = torch.stack([torch.arange(200) * 0.01, torch.arange(200) % 2 * 0.5, normal(seeded(0), 200)], 1).double()
    found = steps_of((z * 100).round() / 100, DOUBLE)
    assert (found.fine, found.any) == (pytest.approx(0.01**2 / 12), pytest.approx(0.25 / 12))
    assert found.name == "steps of 0.01"


@pytest.mark.parametrize("rows", [2, 3, 5, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_few_rows_show_no_step(rows, dtype):
    values = normal(seeded(0), rows, 2000).to(dtype)
    assert steps_of(values, torch.finfo(dtype).eps) == (0.0, 0.0, "")


def test_enough_rows_of_any_numbers_show_no_step():
    for seed in range(5):
        assert steps_of(normal(seeded(seed), 10, 4000), DOUBLE) == (0.0, 0.0, "")
