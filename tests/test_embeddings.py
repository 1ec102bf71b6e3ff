import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import EPS, normal, rotation

from dyncollapse import Monitor, contrastive_covariance, diagnose
from dyncollapse.diagnosis import COLLAPSED_BELOW
from dyncollapse.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
)
from dyncollapse.planted import planted_cases
from dyncollapse.spectra import covariance_spectrum

RANKS = ("rankme", "effective_rank", "participation_ratio", "stable_rank")
# Eigenvalues that span four decades: 1e4 eps of the smallest, and a few more for the sums.
CLOSE = 1e-9


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def planted(generator, n, spectrum, mean=0.0):
    """Rows whose covariance (1/n) is exactly the one with these eigenvalues, in a random frame, around a mean."""
    d = len(spectrum)
    rows = normal(generator, n, d)
    rows = rows - rows.mean(0)
    white = torch.linalg.qr(rows).Q * n**0.5
    return white * torch.as_tensor(spectrum, dtype=torch.float64).sqrt() @ rotation(generator, d) + mean


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


# --- Error bars

REPETITIONS = 300


def bars(seeds, n, scales):
    for seed in seeds:
        yield diagnose(normal(seeded(seed), n, len(scales)) * scales)


def test_intervals_cover_what_repetitions_spread_around():
    """300 trials of probability 0.95 lie within 0.90 and 0.99 but for 1 in 5000; bias is excluded by the mean."""
    scales = torch.tensor([2.0, 1.2, 1.0, 0.9, 0.7, 0.5, 0.4, 0.3], dtype=torch.float64)
    reports = list(bars(range(REPETITIONS), 500, scales))
    for name in RANKS:
        middle = sum(r.measures[name] for r in reports) / REPETITIONS
        covered = sum(r.intervals[name][0] <= middle <= r.intervals[name][1] for r in reports) / REPETITIONS
        assert 0.90 <= covered <= 0.99, (name, covered)


def test_interval_of_alpha_covers_too():
    # Twenty dimensions give its fit fifteen points.
    scales = torch.arange(1, 21, dtype=torch.float64).pow(-0.75)
    reports = list(bars(range(REPETITIONS), 500, scales))
    middle = sum(r.measures["alpha_req"] for r in reports) / REPETITIONS
    low_high = [r.intervals["alpha_req"] for r in reports]
    covered = sum(low <= middle <= high for low, high in low_high) / REPETITIONS
    assert 0.90 <= covered <= 0.99, covered


def half_width(report, name):
    low, high = report.intervals[name]
    return (high - low) / 2 / 1.96


@pytest.mark.parametrize("tails", ["gaussian", "heavy"])
@pytest.mark.parametrize("seed", range(2))
def test_standard_errors_are_those_of_a_row_bootstrap(tails, seed):
    """400 resamples know a standard deviation to 1 / sqrt(800) = 3.5 %, heavy tails to 7 %; the rest is curvature."""
    g = seeded(seed)
    n, resamples = 600, 400
    z = normal(g, n, 6) * torch.tensor([3.0, 1.5, 1.0, 0.8, 0.6, 0.4], dtype=torch.float64) + 0.2
    if tails == "heavy":
        z = z * (0.5 + normal(g, n, 1).abs())
    report = diagnose(z)
    found = {name: [] for name in RANKS}
    for _ in range(resamples):
        rows = z[torch.randint(0, n, (n,), generator=g)]
        spectrum = covariance_spectrum(rows)
        found["rankme"].append(float(rankme(rows)))
        found["effective_rank"].append(float(effective_rank(spectrum)))
        found["participation_ratio"].append(float(participation_ratio(spectrum)))
        found["stable_rank"].append(float(intrinsic_dimension(spectrum)))
    for name, values in found.items():
        spread = float(torch.tensor(values).std())
        assert half_width(report, name) == pytest.approx(spread, rel=0.2), name


def test_a_sample_of_the_rows_gives_about_the_same_bars():
    z = normal(seeded(0), 20_000, 8) * torch.tensor([2.0, 1.2, 1, 0.9, 0.7, 0.5, 0.4, 0.3], dtype=torch.float64)
    whole, part = diagnose(z, sample=20_000), diagnose(z, sample=1000)
    assert part.conventions["sample"] == 1000
    for name in (*RANKS, "participation_ratio_unbiased"):
        # Four standard errors of a standard deviation from 1000 rows, 4 sqrt(2 / (4 n)) with kurtosis 3: 9 %; doubled
        # for influences, which are sums of squares and so have heavier tails.
        assert half_width(part, name) == pytest.approx(half_width(whole, name), rel=0.18), name
        if name != "participation_ratio_unbiased":
            assert part.measures[name] == whole.measures[name]
    assert part.measures["participation_ratio_unbiased"] == pytest.approx(
        whole.measures["participation_ratio_unbiased"], rel=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_their_own_value(seed):
    g = seeded(seed)
    # The fifth variance is 3 % below the level, and known to sqrt(2 / n) = 10 % only.
    report = diagnose(planted(g, 200, [1.0, 1.0, 1.0, 1.0, 0.97e-4, 1e-7, 1e-12]))
    assert report.collapsed == 3
    assert report.intervals["collapsed"] == (2, 3)
    for name, bar in report.intervals.items():
        if bar is not None and name != "collapsed":
            assert bar[0] < report.measures[name] < bar[1]


def test_nine_rows_have_no_error_bars():
    z = normal(seeded(0), 10, 3)
    assert all(bar is None for bar in diagnose(z[:9]).intervals.values())
    assert diagnose(z).intervals["rankme"] is not None
    assert diagnose(z).intervals["collapsed"] == (0, 0)


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
    for case in planted_cases(0, 1000):
        if "inputs" in case.others:
            others = dict(case.others)
            for name in ("inputs", "input_positives"):
                others[name] = factor * others[name]
            report = diagnose(case.z, **others)
            assert report.collapsed == case.collapsed, case.name
            assert report.verdict.mechanism == case.mechanism, case.name
            # Every input direction carries data.
            assert len(report.ratios) == others["inputs"].shape[1], case.name


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
    assert "no rank measure is defined: nothing varies" in report.warnings
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


# --- Pairs and inputs


def softmax_weights(z, positive, loss, views):
    """Alpha, dense: by each loss's definition, with the positive's logit in place of j = i."""
    if loss == "ntxent":
        z, positive = (torch.nn.functional.normalize(rows, dim=1) for rows in (z, positive))
    negatives = z if views == "one-sided" else positive
    if loss == "infonce":
        logits, own = -torch.cdist(z, negatives).square() / 2, -(z - positive).square().sum(1) / 2
    else:
        logits, own = z @ negatives.T / 0.5, (z * positive).sum(1) / 0.5
    return torch.softmax(torch.where(torch.eye(len(z), dtype=torch.bool), own, logits), dim=1)


@pytest.mark.parametrize(
    ("loss", "views"),
    [
        ("infonce", "one-sided"),
        ("infonce", "two-sided"),
        ("dot", "one-sided"),
        ("dot", "two-sided"),
        ("ntxent", "two-sided"),
    ],
)
def test_weights_of_a_loss_give_the_dense_covariances(loss, views, generator):
    x, x_pos = normal(generator, 40, 6), normal(generator, 40, 6)
    layer = normal(generator, 6, 4)
    z, positive = x @ layer, x_pos @ layer
    temperature = None if loss == "infonce" else 0.5
    got = diagnose(z, positive, inputs=x, input_positives=x_pos, views=views, loss=loss, temperature=temperature)
    alpha = softmax_weights(z, positive, loss, views)
    expected = contrastive_covariance(z, positive, alpha, positive if views == "two-sided" else None)
    torch.testing.assert_close(got.pairs.data, expected.data, rtol=0, atol=1e-10)
    torch.testing.assert_close(got.pairs.augmentation, expected.augmentation, rtol=0, atol=1e-10)
    inputs = contrastive_covariance(x, x_pos, alpha, x_pos if views == "two-sided" else None)
    ratios = (
        torch.linalg.eigvals(torch.linalg.solve(inputs.data, inputs.augmentation)).real.sort(descending=True).values
    )
    torch.testing.assert_close(got.ratios, ratios, rtol=1e-8, atol=0)
    assert got.conventions["weights"] == loss
    assert got.conventions["augmentation_space"] == "last layer's inputs"


@pytest.mark.parametrize("loss", [None, "infonce", "dot"])
def test_rounding_of_the_pairs_makes_no_ratio(loss, generator):
    # Rank 8 of 16; products in float32 leave noise in the other 8, whose ratio could be anything.
    frame = rotation(generator, 16)[:8]
    clean = normal(generator, 500, 8)
    z, positive = ((rows @ frame).float() for rows in (clean, clean + 0.3 * normal(generator, 500, 8)))
    report = diagnose(z, positive, loss=loss, inputs=z, input_positives=positive)
    assert len(report.ratios) == 8
    assert report.augmentation_share == 0
    # Eight directions grow, eight are alive: none is left to wait.
    assert report.verdict.fates == ["alive"] * 8 + ["dead"] * 8
    assert diagnose(z, positive, loss=loss).verdict.fates == ["alive"] * 8 + ["unresolved"] * 8


def test_rho_is_not_told_where_only_the_svd_can_see(generator):
    z = planted(generator, 300, [1.0, 1.0, 1e-10])
    z = torch.cat([z, 1e-11 * normal(generator, 300, 1)], dim=1)
    report = diagnose(z, z + 0.1 * z.flip(0), svd=True)
    assert float(report.spectrum[-1]) > report.noise_floor
    assert report.verdict.fates == ["alive", "alive", "waiting", "unresolved"]


@pytest.mark.parametrize("seed", range(3))
def test_every_planted_case_gets_its_answer(seed):
    for case in planted_cases(seed, 2000):
        report = diagnose(case.z, **case.others)
        found = (report.collapsed, report.verdict.mechanism, report.verdict.fates[-1])
        assert found == (case.collapsed, case.mechanism, case.fate), case.name


@pytest.mark.parametrize(("augmented", "dead", "waiting"), [(0, 0, 6), (2, 2, 4), (6, 6, 0), (9, 6, 0)])
def test_inputs_tell_dead_from_waiting_below_the_floor(augmented, dead, waiting, generator):
    # A layer of rank 6 in 12 inputs, `augmented` of which have rho > 1: of the others 6 are alive and the rest waits.
    n, d = 2000, 12
    scales = torch.tensor([0.2] * (d - augmented) + [3.0] * augmented, dtype=torch.float64)
    x = normal(generator, n, d)
    x_pos = x + normal(generator, n, d) * scales
    layer = torch.zeros(d, d, dtype=torch.float64)
    layer[range(6), range(6)] = 1.0
    layer = layer @ rotation(generator, d)
    report = diagnose(x @ layer, x_pos @ layer, inputs=x, input_positives=x_pos, views="one-sided")
    fates = [report.verdict.fates.count(fate) for fate in ("alive", "waiting", "dead")]
    assert fates == [6, waiting, dead]


def test_ratio_is_read_along_each_principal_direction(generator):
    n = 4000
    z = planted(generator, n, [4.0, 1.0, 1e-6])
    frame = torch.linalg.eigh(torch.cov(z.T)).eigenvectors.flip(-1)
    noise = normal(generator, n, 3) * torch.tensor([0.2, 1.0, 2e-3], dtype=torch.float64)
    report = diagnose(z, z + noise @ frame.T, views="one-sided")
    # One-sided, rho = a / (2 s); a relative error of sqrt(2 / n) = 2.2 % each, five of them.
    expected = torch.tensor([0.04 / 8, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(report.ratio, expected, rtol=0.11, atol=0)
    assert report.verdict.fates == ["alive", "alive", "dead"]
    assert report.augmentation_share == pytest.approx(1 / 3)


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


@pytest.mark.parametrize("scale", [1e-150, 1e-77, 1.0, 1e77, 1e150])
def test_no_unit_is_too_large_or_small(scale, generator):
    z = planted(generator, 60, [1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    here, there = diagnose(z), diagnose(scale * z)
    assert present(there.measures) == pytest.approx(present(here.measures), rel=1e-9)
    for name, bar in here.intervals.items():
        assert there.intervals[name] == (None if bar is None else pytest.approx(bar, rel=1e-9)), name
    assert there.verdict.fates == here.verdict.fates


def test_effective_rank_of_the_uncentred_second_moment_is_not_rankme(generator):
    z = normal(generator, 100, 5) + 3
    second = torch.linalg.eigvalsh(z.T @ z / 100)
    report = diagnose(z)
    assert report.measures["rankme"] == pytest.approx(float(rankme_from_eigenvalues(second)), rel=1e-9)
    assert abs(report.measures["rankme"] - float(effective_rank(second))) > 0.1


# --- What the views can tell


def paired(generator, aug_std, gain, n=4000):
    """Embeddings of clean inputs N(0, I) by one diagonal layer, and of the same with noise."""
    x, gain = normal(generator, n, len(gain)), torch.tensor(gain, dtype=torch.float64)
    noise = normal(generator, n, len(gain)) * torch.tensor(aug_std, dtype=torch.float64)
    return x * gain, (x + noise) * gain


@pytest.mark.parametrize("coarse", [torch.float16, torch.bfloat16])
def test_rounding_of_a_coarser_view_is_no_augmentation(coarse, generator):
    # The small dimensions are waiting: their positives' rounding, mixed in by a rotation, is larger than their data.
    z, z_pos = paired(generator, [0.3] * 16, [1.0] * 8 + [1e-4] * 8)
    turn = rotation(generator, 16)
    z, z_pos = z @ turn, z_pos @ turn
    assert diagnose(z, z_pos, views="one-sided").verdict.fates[8:] == ["waiting"] * 8
    report = diagnose(z, z_pos.to(coarse).double(), views="one-sided")
    assert "dead" not in report.verdict.fates
    assert any(f"rounded to float64 and to {str(coarse)[6:]}" in text for text in report.warnings)


def test_views_that_are_the_same_explain_nothing(generator):
    z, _ = paired(generator, [0.0] * 8, [1.0] * 4 + [1e-3] * 4)
    report = diagnose(z, z.clone())
    assert report.verdict.fates == ["alive"] * 4 + ["unexplained"] * 4
    assert any("there is no augmentation to compare data with" in text for text in report.warnings)


def test_warns_of_ratios_that_sampling_can_turn_and_of_no_others(generator):
    z, z_pos = paired(generator, [0.2] * 4 + [2**0.5, 0.5], [1.0] * 4 + [2e-3, 1e-3])
    near = [text for text in diagnose(z, z_pos, views="one-sided").warnings if "rho" in text]
    assert [text[:17] for text in near] == ["rho of 1 collapse", "1 generalised rho"]
    z, z_pos = paired(generator, [0.2] * 4 + [2.0, 0.5], [1.0] * 4 + [2e-3, 1e-3])
    assert not [text for text in diagnose(z, z_pos, views="one-sided").warnings if "rho" in text]


def test_numbers_whose_squares_vanish_are_refused(generator):
    with pytest.raises(ValueError, match="squares vanish"):
        diagnose(1e-200 * normal(generator, 50, 4))
