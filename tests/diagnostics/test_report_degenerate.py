import json

import pytest
import torch
from helpers.planted import RANKS, planted
from helpers.reference import EPS, normal, rotation, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from dyncollapse import Monitor, diagnose

# --- Formats


@pytest.mark.parametrize("coarse", [torch.bfloat16, torch.float16, torch.float32])
def test_values_rounded_to_a_format_are_recognised_in_any_wider_one(coarse, generator):
    z = (normal(generator, 400, 6) @ rotation(generator, 12)[:6]).to(coarse)
    for stored in (torch.float32, torch.float64):
        if torch.finfo(stored).eps > torch.finfo(coarse).eps:
            continue
        report = diagnose(z.to(stored))
        assert report.conventions["precision"] == str(coarse).removeprefix("torch.")
        assert report.conventions["dtype"] == str(stored).removeprefix("torch.")
        # Six directions are rounding, above the noise of the sums and below the floor.
        assert report.verdict.fates == ["alive"] * 6 + ["unresolved"] * 6
        told = any("values are rounded to" in warning for warning in report.warnings)
        assert told == (coarse != torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_numbers_are_not_taken_for_half_precision(dtype, generator):
    z = (10 * normal(generator, 300, 5)).round()
    report = diagnose(z.to(dtype))
    assert report.conventions["precision"] == str(dtype).removeprefix("torch.")
    assert not any("rounded" in warning for warning in report.warnings)
    whole = diagnose(z.to(torch.int16))
    torch.testing.assert_close(whole.spectrum, report.spectrum, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_sphere_is_recognised_at_every_precision(dtype, generator):
    z = torch.nn.functional.normalize(normal(generator, 300, 64), dim=1)
    for stored in (dtype, torch.float64):
        assert diagnose(z.to(dtype).to(stored)).conventions["normalised"]
    assert not diagnose((z * (1 + 20 * torch.finfo(dtype).eps)).to(dtype)).conventions["normalised"]


# --- Degenerate data


@pytest.mark.parametrize(("n", "d"), [(2, 5), (3, 3), (12, 12), (12, 13), (30, 64), (100, 256)])
def test_dimensions_beyond_the_samples_are_unseen_and_not_collapsed(n, d, generator):
    report = diagnose(normal(generator, n, d))
    assert report.collapsed == 0
    assert report.verdict.fates == ["alive"] * (n - 1) + ["unseen"] * (d - n + 1)
    assert report.verdict.mechanism == "none"
    assert report.warnings[0].startswith(f"{n} samples of {d} dimensions show at most {n - 1}")


@pytest.mark.parametrize("sample", [4096, 300])
def test_repeated_rows_are_seen_once(sample, generator):
    z = normal(generator, 30, 64)[torch.randint(0, 30, (2000,), generator=generator)].float()
    report = diagnose(z, sample=sample)
    assert report.verdict.fates == ["alive"] * 29 + ["unseen"] * 35
    assert any("rows are repeated" in warning for warning in report.warnings)


@pytest.mark.parametrize("sample", [2, 30, 64, 65])
def test_a_sample_smaller_than_the_dimension_hides_no_dimension(sample, generator):
    z = planted(generator, 300, [1.0] * 40 + [0.0] * 24)
    report = diagnose(z, sample=sample)
    assert report.verdict.fates == ["alive"] * 40 + ["unresolved"] * 24
    # A few repetitions by chance tell nothing of how many rows differ.
    twice = diagnose(z.repeat(2, 1), sample=sample)
    assert twice.verdict.fates == report.verdict.fates


@pytest.mark.parametrize("constant", [0.0, 0.7, -1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constant_columns_are_named_and_collapsed(constant, dtype, generator):
    z = normal(generator, 300, 8)
    z[:, [2, 5]] = constant
    monitor, z = Monitor(), z.to(dtype)
    for batch in z.split(77):
        monitor.update(batch)
    for report in (diagnose(z), monitor.compute()):
        named = [warning for warning in report.warnings if "constant" in warning]
        assert named == ["2 column(s) are constant: 2, 5 (counted from 0); each is a collapsed dimension"]
        if constant != -1e6 or dtype == torch.float64:
            assert report.verdict.fates == ["alive"] * 6 + ["unresolved"] * 2
        # A column at 1e6 is known to eps 1e6 only, which its neighbours share in the floor's bound.
        assert float(report.spectrum[-2:].max()) <= 16 * 8 * EPS * float(report.spectrum[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize("value", [0, 3, 1_000_000])
def test_one_point_is_complete_collapse(dtype, value):
    report = diagnose(torch.full((50, 6), value, dtype=dtype))
    assert report.collapsed == 6
    assert report.verdict.mechanism == "unknown"
    assert [report.measures[name] for name in ("effective_rank", "participation_ratio", "stable_rank")] == [None] * 3
    assert "no rank measure is defined: nothing varies" in report.notes
    paired = diagnose(torch.full((50, 6), value, dtype=dtype), torch.full((50, 6), value, dtype=dtype))
    assert (len(paired.ratios), paired.augmentation_share) == (0, None)
    for values in (report.as_values(), paired.as_values()):
        json.dumps(values, allow_nan=False)


def test_one_dimension_is_one_dimension(generator):
    z = normal(generator, 100, 1) + 5
    report = diagnose(z, z + 0.1 * normal(generator, 100, 1))
    assert [report.measures[name] for name in RANKS] == pytest.approx([1.0] * 4)
    assert report.measures["alpha_req"] is None
    assert report.verdict.sentence == "No dimension of 1 collapsed."
    assert float(report.ratios[0]) < 0.05


def test_numbers_whose_squares_vanish_are_refused(generator):
    with pytest.raises(ValueError, match="squares vanish"):
        diagnose(1e-200 * normal(generator, 50, 4))


# --- Whatever comes, the report is JSON

FORMATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def oddities(draw):
    g = seeded(draw(st.integers(0, 2**31)))
    n, d = draw(st.integers(1, 14)), draw(st.integers(1, 9))
    z = normal(g, n, d)
    shape = draw(st.sampled_from(["plain", "constant", "point", "repeated", "zero", "steep", "sphere", "line"]))
    if shape == "constant":
        z[:, : draw(st.integers(1, d))] = draw(st.sampled_from([0.0, 1.0, 1e6]))
    elif shape == "point":
        z = z[:1].repeat(n, 1)
    elif shape == "repeated":
        z = z[torch.randint(0, max(1, n // 2), (n,), generator=g)]
    elif shape == "zero":
        z = torch.zeros_like(z)
    elif shape == "steep":
        z = z * torch.logspace(0, -30, d, dtype=torch.float64)
    elif shape == "sphere":
        z = torch.nn.functional.normalize(z, dim=1)
    elif shape == "line":
        z = z[:, :1] * normal(g, d)
    z = z + draw(st.sampled_from([0.0, 0.0, 1.0, 1e6]))
    dtype = draw(st.sampled_from(FORMATS))
    largest = {torch.float64: 150, torch.float32: 15, torch.float16: 2, torch.bfloat16: 15}.get(dtype, 1)
    z = z * 10.0 ** draw(st.integers(-largest, largest))
    if dtype.is_floating_point:
        z = z.clamp(-torch.finfo(dtype).max / 2, torch.finfo(dtype).max / 2)
    elif dtype != torch.bool:
        z = z.clamp(0, 200)
    z = z.to(dtype)
    shuffled = [z[torch.randperm(n, generator=g)] for _ in range(2)]
    options = draw(
        st.sampled_from(
            [
                {},
                {"positives": z},
                {"positives": torch.zeros_like(z)},
                {"positives": z[:1].repeat(n, 1)},
                {"positives": shuffled[0]},
                {"positives": shuffled},
                {"positives": [z, z]},
                {"positives": z, "inputs": z, "input_positives": z},
                {"positives": shuffled[0], "inputs": z.double(), "input_positives": shuffled[1].double()},
                {"positives": shuffled[0], "loss": "infonce"},
                {"positives": z, "loss": "dot", "temperature": 0.5},
            ]
        )
    )
    asked = {
        "views": draw(st.sampled_from(["one-sided", "two-sided"])),
        "svd": draw(st.booleans()),
        "fast": draw(st.booleans()),
        "sample": draw(st.sampled_from([2, 5, 4096])),
    }
    return z, options | asked


@settings(max_examples=400)
@given(oddities())
def test_whatever_comes_is_refused_in_a_line_or_reported_without_nan(oddity):
    z, options = oddity
    try:
        report = diagnose(z, **options)
    except ValueError as error:
        refused = str(error)
    else:
        refused = None
    if refused is not None:
        assert refused
        assert "\n" not in refused
        return
    values = json.loads(json.dumps(report.as_values(), allow_nan=False))
    assert values["collapsed"] == sum(dimension["collapsed"] for dimension in values["verdict"]["dimensions"])
    for name, bar in values["intervals"].items():
        middle = values["collapsed"] if name == "collapsed" else values["measures"][name]
        assert bar is None or bar[0] <= middle <= bar[1]
    assert all("\n" not in warning for warning in values["warnings"])
