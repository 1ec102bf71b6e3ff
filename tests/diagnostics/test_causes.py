"""A verdict on measured embeddings does not turn with the sample, and says where the samples leave it open."""

import pytest
import torch
from helpers.reference import normal, rotation, seeded

from dyncollapse import diagnose


def fates(report):
    return {fate: report.verdict.fates.count(fate) for fate in set(report.verdict.fates)}


@pytest.mark.parametrize("samples", [150, 400, 1000, 4000])
@pytest.mark.parametrize("seed", range(6))
def test_directions_that_the_augmentation_emptied_are_suppressed_at_every_size_and_seed(seed, samples):
    g = seeded(seed)
    signal = torch.zeros(samples, 50, dtype=torch.float64)
    signal[:, :20] = normal(g, samples, 20)
    scale = torch.tensor([1.0] * 20 + [0.004] * 30, dtype=torch.float64)
    first, second = ((signal + normal(g, samples, 50)) * scale @ rotation(seeded(9), 50) for _ in range(2))
    report = diagnose(first, second)
    assert fates(report) == {"alive": 20, "suppressed": 30}
    assert "30 by strong augmentation (suppressed: the views share no signal there" in report.verdict.sentence
    assert not any("rho" in text for text in report.warnings)
    assert report.augmentation_share is None


@pytest.mark.parametrize("seed", range(4))
def test_equal_variances_are_told_apart_by_the_signal_they_share(seed):
    # Principal directions of these 24 dimensions are arbitrary mixtures: each shows a correlation of about a quarter.
    g, n = seeded(seed), 4000
    signal = torch.zeros(n, 40, dtype=torch.float64)
    signal[:, :28] = normal(g, n, 28)
    scale = torch.tensor([1.0] * 16 + [0.004] * 12 + [0.004 * 2**0.5] * 12, dtype=torch.float64)
    first, second = ((signal + normal(g, n, 40)) * scale @ rotation(seeded(7), 40) for _ in range(2))
    assert fates(diagnose(first, second)) == {"alive": 16, "waiting": 12, "suppressed": 12}


@pytest.mark.parametrize(("rho", "fate"), [(0.2, "waiting"), (1.0, "unexplained"), (5.0, "dead")])
@pytest.mark.parametrize("samples", [300, 3000])
def test_one_sided_views_decide_only_beyond_the_error_of_rho(rho, fate, samples):
    for seed in range(5):
        g = seeded(seed)
        z = normal(g, samples, 10) * torch.tensor([1.0] * 6 + [2e-3] * 4, dtype=torch.float64)
        noise = normal(g, samples, 10) * torch.tensor([0.1] * 6 + [2e-3 * (2 * rho) ** 0.5] * 4, dtype=torch.float64)
        report = diagnose(z, z + noise, views="one-sided")
        assert fates(report) == {"alive": 6, fate: 4}
        assert ("cause that is open" in report.verdict.sentence) == (fate == "unexplained")


def test_errors_of_rho_are_its_spread_over_samples():
    reports = []
    for seed in range(150):
        g = seeded(seed)
        z = normal(g, 400, 3) * torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
        z = z * (1 + normal(g, 400, 1).abs())  # tails heavier than normal ones
        shift = normal(g, 400, 3) * torch.tensor([1.0, 1.0, 0.4], dtype=torch.float64)
        reports.append(diagnose(z, z + shift, views="one-sided"))
    spread = torch.stack([report.ratio for report in reports]).std(0)
    error = torch.stack([report.ratio_error for report in reports]).mean(0)
    # 150 draws know a standard deviation to 6 %.
    torch.testing.assert_close(error, spread, rtol=0.25, atol=0)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.seeds(3)
def test_width_is_counted_first_and_once(views, generator):
    # 10 inputs, of which 3 are dead or emptied, 24 outputs: 14 cannot be filled whatever is augmented.
    n, aug = 3000, torch.tensor([0.2] * 7 + [5.0] * 3, dtype=torch.float64)
    signal = normal(generator, n, 10) * torch.tensor([1.0] * 7 + [1.0 if views == "one-sided" else 0.0] * 3)
    noise = normal(generator, 2, n, 10) * aug
    x, x_pos = signal + (noise[0] if views == "two-sided" else 0), signal + noise[1]
    layer = torch.diag(torch.tensor([1.0] * 7 + [0.0] * 3, dtype=torch.float64)) @ rotation(generator, 24)[:10]
    report = diagnose(x @ layer, x_pos @ layer, inputs=x, input_positives=x_pos, views=views)
    lost = "dead" if views == "one-sided" else "suppressed"
    assert fates(report) == {"alive": 7, lost: 3, "structural": 14}
    assert report.verdict.mechanism == "strong-augmentation"
    assert report.collapsed == 17
    assert "14 for want of width (the last linear layer reads 10 units)" in report.verdict.sentence
    same = diagnose(x @ layer, x_pos @ layer, views=views, input_dim=10)
    assert fates(same) == {"alive": 7, "unresolved": 3, "structural": 14}


def test_a_layer_as_wide_as_its_inputs_lacks_no_width(generator):
    x = normal(generator, 500, 12)
    layer = rotation(generator, 12)
    report = diagnose(x @ layer, (x + 0.1) @ layer, inputs=x, input_positives=x + 0.1 * normal(generator, 500, 12))
    assert report.verdict.mechanism == "none"


def test_more_dimensions_than_the_layer_reads_are_a_contradiction(generator):
    z = normal(generator, 500, 12)
    small = z * torch.tensor([1.0] * 6 + [1e-3] * 6, dtype=torch.float64)
    for rows, fate in ((z, "alive"), (small, "unexplained")):
        report = diagnose(rows, input_dim=8)
        assert report.verdict.fates == ["alive"] * 6 + [fate] * 6
        assert any("12 dimensions vary, though the last linear layer reads 8 units" in text for text in report.warnings)
        assert "width" not in report.verdict.sentence


@pytest.mark.seeds(3)
def test_inputs_that_do_not_vary_leave_the_cause_open(generator):
    x = normal(generator, 800, 16)
    x[:, 10:] = 1.0
    layer = rotation(generator, 16)
    other = x + torch.cat([0.1 * normal(generator, 800, 10), torch.zeros(800, 6)], 1)
    for views in ("one-sided", "two-sided"):
        report = diagnose(x @ layer, other @ layer, inputs=x, input_positives=other, views=views)
        assert fates(report) == {"alive": 10, "unresolved": 6}
        assert report.verdict.mechanism == "unknown"


def test_few_rows_leave_the_cause_open(generator):
    z = normal(generator, 8, 3) * torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64)
    report = diagnose(z, z + 1e-4 * normal(generator, 8, 3))
    assert report.verdict.fates == ["alive", "alive", "unexplained"]
    assert report.measures["signal_rank"] is None
    assert any("signal_rank is not defined here" in text for text in report.notes)


def test_softmax_weights_do_not_hide_that_views_differ(generator):
    # Far from the origin the positive has all the weight, and both weighted sides vanish.
    z = 100 * normal(generator, 200, 8)
    report = diagnose(z, z + normal(generator, 200, 8), loss="infonce")
    assert not any("equal the first" in text for text in report.warnings)
    assert report.measures["signal_rank"] == 8


def test_a_direction_without_data_spoils_no_other(generator):
    z = normal(generator, 1000, 6) * torch.tensor([1.0, 1.0, 1.0, 2e-3, 2e-3, 0.0], dtype=torch.float64)
    noise = normal(generator, 1000, 6) * torch.tensor([0.1, 0.1, 0.1, 5e-4, 5e-4, 1.0], dtype=torch.float64)
    report = diagnose(z, z + noise, views="one-sided")
    assert report.verdict.fates == ["alive"] * 3 + ["waiting"] * 2 + ["unresolved"]
    assert report.ratio[-1] == torch.inf


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("dim", [32, 128])
def test_rounding_of_the_arithmetic_is_no_augmentation(views, dim):
    # Every input shares signal; a product in float32 by a layer of half rank leaves noise that is each view's own.
    g = torch.Generator().manual_seed(dim)
    signal = 2 * torch.randn(2000, dim, generator=g)
    first, second = (signal + torch.randn(2000, dim, generator=g) for _ in range(2))
    first = signal if views == "one-sided" else first
    u, _, vh = torch.linalg.svd(torch.randn(dim, dim, generator=g).double())
    layer = (u[:, : dim // 2] @ vh[: dim // 2]).float()
    z, z_pos = first @ layer.T, second @ layer.T
    half = dim // 2
    assert fates(diagnose(z, z_pos, views=views)) == {"alive": half, "unresolved": half}
    told = diagnose(z, z_pos, inputs=first, input_positives=second, views=views)
    assert fates(told) == {"alive": half, "waiting": half}


@pytest.mark.parametrize("rho", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("samples", [300, 500, 1000])
def test_directions_that_lean_on_growing_ones_do_not_grow(rho, samples):
    # 100 inputs alive at rho = 0.1 pull the cross-validated rho of the 28 hidden ones below 1.
    for seed in range(3):
        g = seeded(seed)
        x = normal(g, samples, 128)
        x_pos = x + normal(g, samples, 128) * torch.tensor([0.2**0.5] * 100 + [(2 * rho) ** 0.5] * 28).double()
        gain = torch.tensor([1.0] * 100 + [0.0] * 28, dtype=torch.float64)
        found = fates(diagnose(x * gain, x_pos * gain, inputs=x, input_positives=x_pos, views="one-sided"))
        assert found.get("waiting", 0) == 0
        assert found["alive"] == 100


@pytest.mark.parametrize("samples", [256, 640])
def test_strong_signal_makes_no_emptied_direction_negative(samples):
    for seed in range(20):
        g = seeded(seed)
        signal = normal(g, samples, 64) * torch.tensor([5.0] * 60 + [0.0] * 4, dtype=torch.float64)
        first, second = (signal + normal(g, samples, 64) for _ in range(2))
        gain = torch.tensor([1.0] * 60 + [0.0] * 4, dtype=torch.float64)
        found = fates(diagnose(first * gain, second * gain, inputs=first, input_positives=second))
        assert "dead" not in found


@pytest.mark.seeds(3)
def test_hardly_augmented_dimensions_wait(generator):
    for n in (100, 4000):
        x = normal(generator, n, 30)
        x_pos = x.clone()
        x_pos[:, :20] += 0.4 * normal(generator, n, 20)
        gain = torch.tensor([1.0] * 20 + [0.003] * 10, dtype=torch.float64)
        assert fates(diagnose(x * gain, x_pos * gain, views="one-sided")) == {"alive": 20, "waiting": 10}


@pytest.mark.parametrize("rho", [0.3, 3.0])
def test_directions_beyond_the_rank_of_half_of_the_samples_are_not_told_the_wrong_way(rho):
    for seed in range(3):
        g = seeded(seed)
        gain = torch.tensor([1.0] * 20 + [1e-3] * 400, dtype=torch.float64)
        x = normal(g, 150, 420)
        x_pos = x + (2 * rho) ** 0.5 * normal(g, 150, 420)
        found = fates(diagnose(x * gain, x_pos * gain, views="one-sided"))
        assert ("dead" if rho < 1 else "waiting") not in found


@pytest.mark.parametrize("hidden_by", [0.0, 0.004])
def test_suppressed_dimensions_say_how_strong_a_signal_may_have_gone_unseen(hidden_by):
    # 12 inputs share a correlation of 0.3, and 8 none: 300 samples see little of it, 20000 nearly all.
    explained = []
    for samples in (300, 20000):
        g = seeded(samples)
        strength = torch.tensor([2.0] * 20 + [(0.3 / 0.7) ** 0.5] * 12 + [0.0] * 8, dtype=torch.float64)
        shared = normal(g, samples, 40) * strength
        x, x_pos = (shared + normal(g, samples, 40) for _ in range(2))
        gain = torch.tensor([1.0] * 20 + [hidden_by] * 20, dtype=torch.float64)
        report = diagnose(x * gain, x_pos * gain, inputs=x, input_positives=x_pos)
        found = report.as_values()["verdict"]
        assert report.verdict.fates.count("suppressed") >= 8
        explained.append(found["unseen_signal"])
        assert f"above a correlation of {explained[-1]:.2g})" in found["sentence"]
    few, many = explained
    assert 0.3 < few < 0.7  # what was missed is weaker than what is said to go unseen
    assert many < 0.1
    assert fates(report)["waiting"] == 12


def test_without_suppressed_dimensions_no_unseen_signal_is_given(generator):
    x = normal(generator, 500, 6)
    report = diagnose(x, x + 0.1 * normal(generator, 500, 6))
    assert report.as_values()["verdict"]["unseen_signal"] is None


def a_layer(seed, views, gain, positives=True):
    """The report on a layer with these gains for 8 inputs: 4 along which a dimension grows, and 4 that are lost."""
    g = seeded(seed)
    if views == "one-sided":
        x = normal(g, 1500, 8)
        x_pos = x + normal(g, 1500, 8) * torch.tensor([0.5] * 4 + [2.0] * 4)
    else:
        signal = normal(g, 1500, 8) * torch.tensor([2.0] * 4 + [0.0] * 4)
        x, x_pos = (signal + normal(g, 1500, 8) for _ in range(2))
    layer = torch.as_tensor(gain, dtype=torch.float64)[:, None] * rotation(g, 8)
    return diagnose(x @ layer, x_pos @ layer if positives else None, inputs=x, input_positives=x_pos, views=views)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("positives", [True, False])
def test_alive_dimensions_on_lost_inputs_leave_hidden_ones_open(views, positives):
    lost = "dead" if views == "one-sided" else "suppressed"
    for seed in range(3):
        for hidden in (0.0, 1e-9):
            # The layer reads the lost inputs: training will lose them, and the hidden dimensions would grow.
            assert fates(a_layer(seed, views, [hidden] * 4 + [1.0] * 4, positives)) == {"alive": 4, "unresolved": 4}
            # It reads half of both: as many hidden dimensions are lost, and the others would grow.
            mixed = fates(a_layer(seed, views, [1.0, 1.0, hidden, hidden] * 2, positives))
            assert mixed == {"alive": 4, lost: 2, "unresolved": 2}
            # It reads what grows: the hidden ones are lost.
            assert fates(a_layer(seed, views, [1.0] * 4 + [hidden] * 4, positives)) == {"alive": 4, lost: 4}
