import math

import pytest
import torch
from helpers.planted import RANKS, cases, planted
from helpers.reference import EPS, normal, rotation, seeded

from dyncollapse import diagnose
from dyncollapse.diagnostics.measures import (
    alpha_req,
    effective_rank,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
)
from dyncollapse.diagnostics.spectra import covariance_spectrum
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW

# Eigenvalues that span four decades: 1e4 eps of the smallest, and a few more for the sums.
CLOSE = 1e-9


def present(values):
    return {name: value for name, value in values.items() if value is not None}


# --- Values


@pytest.mark.parametrize("n", [20, 200])
def test_measures_are_those_of_the_embeddings(n, generator):
    z = planted(generator, n, torch.logspace(0, -3, 12), mean=0.3)
    report = diagnose(z)
    centred, spectrum = z - z.mean(0), covariance_spectrum(z)
    torch.testing.assert_close(report.spectrum, spectrum, rtol=CLOSE, atol=0)
    fourth = centred.square().sum(1).square().mean()
    expected = {
        "rankme": rankme(z),
        "effective_rank": effective_rank(spectrum),
        "participation_ratio": participation_ratio(spectrum),
        "participation_ratio_unbiased": participation_ratio_unbiased(spectrum, n, fourth),
        "stable_rank": stable_rank(centred),
        "alpha_req": alpha_req(spectrum, 6, 12),
    }
    assert present(report.measures) == pytest.approx({k: float(v) for k, v in expected.items()}, rel=CLOSE)
    assert (report.samples, report.dim, report.collapsed) == (n, 12, 0)


def test_a_known_spectrum_is_found(generator):
    spectrum = [4.0, 1.0, 0.5, 0.1, 1e-6]
    report = diagnose(planted(generator, 300, spectrum))
    torch.testing.assert_close(report.spectrum, torch.tensor(spectrum, dtype=torch.float64), rtol=1e-8, atol=0)
    assert report.verdict.fates == ["alive"] * 4 + ["unexplained"]
    level = COLLAPSED_BELOW**2 * math.prod(spectrum[:4]) ** 0.25
    assert report.verdict.threshold == report.relative_level == pytest.approx(level, rel=CLOSE)


def test_alpha_is_fitted_to_what_is_alive(generator):
    ranks = torch.arange(1, 31, dtype=torch.float64)
    spectrum = torch.where(ranks <= 20, ranks**-1.5, 1e-9)
    report = diagnose(planted(generator, 400, spectrum))
    assert report.collapsed == 10
    assert report.measures["alpha_req"] == pytest.approx(1.5, rel=1e-8)


def test_effective_rank_of_the_uncentred_second_moment_is_not_rankme(generator):
    z = normal(generator, 100, 5) + 3
    second = torch.linalg.eigvalsh(z.T @ z / 100)
    report = diagnose(z)
    assert report.measures["rankme"] == pytest.approx(float(rankme_from_eigenvalues(second)), rel=1e-9)
    assert abs(report.measures["rankme"] - float(effective_rank(second))) > 0.1


# --- Symmetries


@pytest.mark.parametrize("change", ["scale", "tiny", "rotation", "offset", "order"])
@pytest.mark.parametrize("seed", range(2))
def test_unit_frame_origin_and_order_change_no_verdict(change, seed):
    g = seeded(seed)
    z = planted(g, 200, [2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 1e-6, 1e-8])
    positive = z + 0.5 * normal(g, 200, 9) @ torch.diag(z.std(0))
    frame, order = rotation(g, 9), torch.randperm(200, generator=g)

    def moved(rows):
        return {
            "scale": lambda: 1e6 * rows,
            "tiny": lambda: 1e-6 * rows,
            "rotation": lambda: rows @ frame,
            "offset": lambda: rows + 3.0,
            "order": lambda: rows[order],
        }[change]()

    here, there = diagnose(z, positive), diagnose(moved(z), moved(positive))
    assert there.verdict.fates == here.verdict.fates
    assert there.verdict.mechanisms == here.verdict.mechanisms
    assert there.intervals["collapsed"] == here.intervals["collapsed"]
    torch.testing.assert_close(there.ratios, here.ratios, rtol=1e-6, atol=0)
    torch.testing.assert_close(there.ratio, here.ratio, rtol=1e-6, atol=0)
    for name, value in here.measures.items():
        if name == "rankme" and change == "offset":
            # Not centred: a common offset is one more large direction.
            assert there.measures[name] < 0.8 * value
        elif value is not None:
            assert there.measures[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_unit_of_the_inputs_changes_no_verdict(factor):
    for case in cases(0, 1000).values():
        if "inputs" in case.others:
            others = dict(case.others)
            for name in ("inputs", "input_positives"):
                others[name] = factor * others[name]
            report = diagnose(case.z, **others)
            assert report.collapsed == case.collapsed, case.name
            assert report.verdict.mechanism == case.mechanism, case.name
            # Every input direction carries data.
            assert len(report.ratios) == others["inputs"].shape[1], case.name


@pytest.mark.parametrize("scale", [1e-150, 1e-77, 1.0, 1e77, 1e150])
def test_no_unit_is_too_large_or_small(scale, generator):
    z = planted(generator, 60, [1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    here, there = diagnose(z), diagnose(scale * z)
    assert present(there.measures) == pytest.approx(present(here.measures), rel=1e-9)
    for name, bar in here.intervals.items():
        assert there.intervals[name] == (None if bar is None else pytest.approx(bar, rel=1e-9)), name
    assert there.verdict.fates == here.verdict.fates


# --- The direct route


def test_svd_keeps_the_tail_that_a_covariance_rounds_away(generator):
    spectrum = torch.tensor([1.0, 0.5, 1e-8, 1e-18, 1e-24], dtype=torch.float64)
    # Each direction a column, so that rounding of the entries is relative to it.
    z = normal(generator, 200, 5)
    z = torch.linalg.qr(z - z.mean(0)).Q * (200 * spectrum).sqrt()
    rough, fine = diagnose(z), diagnose(z, svd=True)
    torch.testing.assert_close(fine.spectrum, spectrum, rtol=1e-2, atol=0)
    # Entries are off by 1e-16 of the largest of their column, a QR by that of the largest of all.
    torch.testing.assert_close(fine.spectrum[:3], spectrum[:3], rtol=1e-6, atol=0)
    assert fine.noise_floor <= 16 * EPS**2 * (1 + 1e-9) < 1e-20 < rough.noise_floor
    assert rough.verdict.fates[-2:] == ["unresolved"] * 2
    assert fine.verdict.fates[-2:] == ["unexplained"] * 2
    assert fine.conventions["tail"].startswith("squared singular values")
    assert rough.conventions["tail"] == "of the covariance"


@pytest.mark.parametrize(("n", "d"), [(5, 8), (40, 8)])
def test_both_routes_agree_where_both_can_see(n, d, generator):
    z = normal(generator, n, d) + 2
    rough, fine = diagnose(z), diagnose(z, svd=True)
    torch.testing.assert_close(fine.spectrum, rough.spectrum, rtol=1e-9, atol=1e-13)
    assert fine.verdict.fates == rough.verdict.fates
    for name in RANKS:
        assert fine.measures[name] == pytest.approx(rough.measures[name], rel=1e-6)
