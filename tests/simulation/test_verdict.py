import pytest
import torch
from helpers.reference import VIEWS, normal, random_covariance, rotation
from helpers.verdicts import dimensions

from dyncollapse import (
    COLLAPSED_BELOW,
    GaussianTask,
    Objective,
    gaussian_init,
    judge,
    linear_dimensions,
    mode_dimensions,
    sampled_dimensions,
    uniform_biases,
)
from dyncollapse.simulation.verdict import natural_scale

# 40 000 samples: five standard errors of a variance, 5 sqrt(2 / n), and of a standard deviation, half of that.
SAMPLES = 40_000
FIVE_SIGMA = 5 * (2 / SAMPLES) ** 0.5


def test_linear_dimensions_follow_the_right_singular_vectors(generator):
    s, a = random_covariance(generator, 4), random_covariance(generator, 4)
    weights = gaussian_init([4, 3, 5], generator, (2,), 1.0)
    for views in VIEWS:
        got = linear_dimensions(weights, GaussianTask(s, a, views))
        assert got.singular_value.shape == (2, 5)
        assert got.singular_value[:, 4].tolist() == [0, 0]
        assert got.ratio[:, 4].isnan().all()  # no input direction feeds the fifth output
        for run in range(2):
            _, values, vh = torch.linalg.svd(weights[1][run] @ weights[0][run], full_matrices=False)
            # The product has rank 3: its null direction is as good as any other, and checked like the rest.
            for k, v in enumerate(vh):
                along_s, along_a = float(v @ s @ v), float(v @ a @ v)
                rho = along_a / (2 * along_s) if views == "one-sided" else along_a / (along_s + along_a)
                assert float(got.singular_value[run, k]) == pytest.approx(float(values[k]), abs=1e-12)
                if k < 3:
                    assert float(got.data_var[run, k]) == pytest.approx(along_s, rel=1e-9)
                    assert float(got.aug_var[run, k]) == pytest.approx(along_a, rel=1e-9)
                    assert float(got.ratio[run, k]) == pytest.approx(rho, rel=1e-9)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.seeds(3)
def test_sampled_and_linear_dimensions_agree(views, generator):
    # Covariances that share P's right singular vectors, embedding variances p^2 (s + a) in the order of p.
    v, p = rotation(generator, 4), torch.tensor([4.0, 2.0, 0.8, 0.02], dtype=torch.float64)
    s, a = torch.tensor([[0.5, 0.6, 0.4, 0.5], [0.1, 0.6, 1.5, 0.9]], dtype=torch.float64)
    task = GaussianTask((v * s) @ v.T, (v * a) @ v.T, views)
    weights = (torch.diag(p.sqrt()) @ v.T, rotation(generator, 4) * p.sqrt())
    linear = linear_dimensions(weights, task)
    sampled = sampled_dimensions(weights, task.sample(SAMPLES, generator), "linear")
    size = linear.singular_value.square()
    seen = linear.data_var if views == "one-sided" else linear.data_var + linear.aug_var
    # Principal axes of the sample tilt by O(1/sqrt(n)), which changes a variance at second order only.
    torch.testing.assert_close(sampled.singular_value, (size * seen).sqrt(), rtol=FIVE_SIGMA, atol=0)
    torch.testing.assert_close(sampled.aug_var, size * linear.aug_var, rtol=2 * FIVE_SIGMA, atol=0)
    torch.testing.assert_close(sampled.ratio, linear.ratio, rtol=2 * FIVE_SIGMA, atol=0)
    # Two-sided, s is what is left of s + a: the error of both counts against s, four times smaller at worst.
    torch.testing.assert_close(sampled.data_var, size * linear.data_var, rtol=8 * FIVE_SIGMA, atol=0)
    verdicts = [judge(d) for d in (linear, sampled)]
    assert verdicts[0].mechanisms == verdicts[1].mechanisms
    assert verdicts[0].collapsed == [False, False, False, True]


def test_sampled_dimensions_of_a_relu_network_are_its_embedding_spectrum(generator):
    widths = [3, 6, 4]
    weights, biases = gaussian_init(widths, generator, (2,), 1.0), uniform_biases(widths, generator, (2,))
    pairs = GaussianTask.block(3, 1, 0.5).sample(500, generator, (2,))
    got = sampled_dimensions(weights, pairs, "relu", biases)
    for run in range(2):
        z, z_pos = (
            torch.relu(x[run] @ weights[0][run].T + biases[0][run]) @ weights[1][run].T + biases[1][run]
            for x in (pairs.anchor, pairs.positive)
        )
        variances, axes = torch.linalg.eigh(torch.cov(z.T, correction=0))
        moved = ((z_pos - z) @ axes).square().mean(0)
        torch.testing.assert_close(got.singular_value[run], variances.flip(0).sqrt(), rtol=1e-8, atol=0)
        torch.testing.assert_close(got.aug_var[run], moved.flip(0), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(got.ratio[run], (moved / (2 * variances)).flip(0), rtol=1e-6, atol=1e-12)


def test_a_network_blind_to_the_noise_has_ratio_zero(generator):
    weights = (torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))[:2],)
    task = GaussianTask.block(3, 1, 5.0)
    assert linear_dimensions(weights, task).ratio.tolist() == [0, 0]
    assert sampled_dimensions(weights, task.sample(50, generator), "linear").ratio.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "ratios", "mechanisms", "overall"),
    [
        ([1.0, 0.5, 0.02], [0.0, 0.9, 2.0], ["none"] * 3, "none"),
        ([1.0, 0.5, 0.001], [0.0, 0.9, 2.0], ["none", "none", "strong-augmentation"], "strong-augmentation"),
        ([1.0, 0.5, 0.001], [0.0, 0.9, 0.99], ["none", "none", "implicit-regularization"], "implicit-regularization"),
        ([1.0, 0.002, 0.001], [0.0, 0.9, 1.0], ["none", "implicit-regularization", "strong-augmentation"], "both"),
        ([0.0, 0.0], [0.3, 3.0], ["implicit-regularization", "strong-augmentation"], "both"),
        ([1.0, 0.0], [0.0, float("inf")], ["none", "strong-augmentation"], "strong-augmentation"),
    ],
)
def test_verdict_names_the_mechanism(values, ratios, mechanisms, overall):
    verdict = judge(dimensions(values, ratios))
    assert verdict.mechanisms == mechanisms
    assert verdict.collapsed == [mechanism != "none" for mechanism in mechanisms]
    assert verdict.mechanism == overall


def test_collapse_is_relative_to_the_largest_value():
    for scale in (1e-8, 1.0, 1e8):
        verdict = judge(dimensions([scale, 1.01 * COLLAPSED_BELOW * scale, 0.99 * COLLAPSED_BELOW * scale], [0.0] * 3))
        assert verdict.collapsed == [False, False, True]


def test_a_network_far_below_the_losss_scale_has_collapsed_altogether():
    assert judge(dimensions([1e-4, 0.9e-4], [0.0, 2.0])).collapsed == [False, False]
    verdict = judge(dimensions([1e-4, 0.9e-4], [0.0, 2.0]), scale=1.0)
    assert verdict.mechanisms == ["implicit-regularization", "strong-augmentation"]
    assert verdict.threshold == COLLAPSED_BELOW
    assert judge(dimensions([3.0, 0.02], [0.0, 2.0]), scale=1.0).threshold == 3 * COLLAPSED_BELOW


@pytest.mark.parametrize(
    ("objective", "width"),
    [(Objective(), 1.0), (Objective("dot", 0.25), 0.5), (Objective("spectral"), 1.0), (Objective("ntxent"), 0.0)]
    + [(Objective(name), 1.0) for name in ("vcreg", "vicreg", "barlow")]
    + [(Objective("barlow-normalised"), 0.0)],
)
def test_natural_scale_is_the_losss_width_over_the_datas(objective, width, generator):
    frame = rotation(generator, 3)
    s = frame * torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64) @ frame.T
    task = GaussianTask((s + s.T) / 2, s.new_zeros(3, 3))
    assert natural_scale(task, objective) == pytest.approx(width / 2, rel=1e-12)
    relu = Objective(objective.loss, objective.temperature, "relu")
    assert natural_scale(task, relu) == width


def test_runs_are_judged_by_their_mean():
    verdict = judge(dimensions([[1.0, 0.0], [1.0, 0.04]], [[0.0, 0.5], [0.0, 2.5]]))
    assert verdict.collapsed == [False, False]
    verdict = judge(dimensions([[1.0, 0.0], [1.0, 0.004]], [[0.0, 0.5], [0.0, 2.5]]))
    assert verdict.mechanisms == ["none", "strong-augmentation"]


def test_rotating_input_and_embedding_changes_no_dimension(generator):
    s, a, q = random_covariance(generator, 4), random_covariance(generator, 4), rotation(generator, 4)
    p, r = normal(generator, 3, 4), rotation(generator, 3)
    here = linear_dimensions((p,), GaussianTask(s, a))
    turned = [(c + c.T) / 2 for c in (q @ s @ q.T, q @ a @ q.T)]
    there = linear_dimensions((r @ p @ q.T,), GaussianTask(*turned))
    for name in ("singular_value", "data_var", "aug_var", "ratio"):
        torch.testing.assert_close(getattr(there, name), getattr(here, name), rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_mode_dimensions_give_each_singular_value_to_its_mode(seed):
    generator = torch.Generator().manual_seed(seed)
    q, u = (torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    s, a = torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([0.0, 0.0, 5.0, 5.0])
    task = GaussianTask(q @ torch.diag(s.double()) @ q.T, q @ torch.diag(a.double()) @ q.T)
    sigma = torch.tensor([0.1, 3.0, 0.2, 4.0], dtype=torch.float64)
    got = mode_dimensions((u @ torch.diag(sigma) @ q.T,), task)
    assert got.ratio.tolist() == pytest.approx([0, 0, 1.25, 1.25])
    assert got.singular_value.tolist() == pytest.approx([3.0, 0.1, 4.0, 0.2])


@pytest.mark.parametrize("views", VIEWS)
def test_modes_of_a_wide_and_of_a_narrow_layer(views, generator):
    task = GaussianTask.block(3, 1, 0.5, views=views)
    wide = torch.linalg.qr(normal(generator, 5, 3)).Q * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    got = mode_dimensions((wide,), task)
    assert sorted(got.singular_value[:3].tolist()) == pytest.approx([1, 2, 3])
    assert float(got.singular_value[2]) == pytest.approx(1)  # the augmented mode comes last, the third column's
    assert got.singular_value[3:].tolist() == [0, 0]
    assert got.ratio.isnan().tolist() == [False] * 3 + [True] * 2
    narrow = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))[:2]
    got = mode_dimensions((narrow,), task)
    assert got.singular_value.tolist() == pytest.approx([3, 2, 0])
    assert judge(got, room=2).fates == ["alive", "alive", "structural"]
    assert judge(mode_dimensions((wide,), task), room=3).fates == ["alive"] * 3 + ["structural"] * 2


@pytest.mark.parametrize(
    ("values", "ratios", "room", "fates"),
    [
        ([1.0, 0.5, 0.0, 0.0], [0.1, 0.1, 0.2, 0.3], 2, ["alive", "alive", "structural", "structural"]),
        ([1.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.2, 0.3], 2, ["alive", "waiting", "structural", "structural"]),
        ([1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 2.0], 2, ["alive", "waiting", "structural", "dead"]),
        ([1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 2.0, 2.0], 2, ["alive", "waiting", "dead", "dead"]),
        ([1.0, 0.9, 0.8, 0.0], [0.1, 0.2, 0.3, 0.4], 9, ["alive", "alive", "alive", "waiting"]),
    ],
)
def test_width_accounts_for_what_would_live_but_has_no_room(values, ratios, room, fates):
    verdict = judge(dimensions(values, ratios), room=room)
    assert verdict.fates == fates
    if "structural" in fates:
        count = fates.count("structural")
        assert f"{count} for want of width (the network is only {room} wide)" in verdict.sentence
    assert judge(dimensions(values, ratios)).fates.count("structural") == 0


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.seeds(3)
def test_a_sampled_ratio_within_its_error_of_one_does_not_decide(views, generator):
    # ReLU or linear, a direction without data: rho = 1 exactly under two-sided views, 1 in expectation one-sided here.
    s = torch.tensor([1.0, 1.0, 0.0 if views == "two-sided" else 0.5], dtype=torch.float64)
    a = torch.tensor([0.1, 0.1, 1.0], dtype=torch.float64)
    task = GaussianTask(torch.diag(s), torch.diag(a), views)
    weights = (torch.diag(torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64)),)
    for _ in range(10):
        found = sampled_dimensions(weights, task.sample(2000, generator), "linear")
        verdict = judge(found)
        assert verdict.fates[2] == ("suppressed" if views == "two-sided" else "unexplained")
    assert ("cause that is open" in verdict.sentence) == (views == "one-sided")


@pytest.mark.parametrize("views", VIEWS)
def test_a_sampled_dimension_that_is_gone_to_the_last_digit_tells_no_cause(views, generator):
    weights = (torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)),)
    found = sampled_dimensions(weights, GaussianTask.block(3, 1, 0.5, views=views).sample(500, generator), "relu")
    assert judge(found).fates == ["alive", "alive", "unexplained"]


@pytest.mark.seeds(3)
def test_error_of_a_sampled_ratio_is_its_spread_over_samples(generator):
    task, weights = GaussianTask.block(3, 1, 0.4), (torch.diag(torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)),)
    found = [sampled_dimensions(weights, task.sample(1000, generator), "linear") for _ in range(200)]
    spread = torch.stack([d.ratio for d in found]).std(0)
    mean_error = torch.stack([d.ratio_error for d in found]).mean(0)
    # 200 draws know a standard deviation to 5 %.
    torch.testing.assert_close(mean_error[2], spread[2], rtol=0.2, atol=0)
    assert float(mean_error[:2].max()) < 1e-5  # directions without augmentation, up to the tilt of the sample's axes


FATES = {
    "values": [1.0, 0.0, 0.001, 0.002],
    "ratios": [2.0, 1.0, 0.9, 0.5],
    "rest": torch.tensor([1.0, 0.0, COLLAPSED_BELOW, 0.5], dtype=torch.float64),
    "escape": torch.tensor([1.0, 2.0, 3.0, 4.0]),
}


def test_fates_are_distinguished():
    verdict = judge(dimensions(FATES["values"], FATES["ratios"]), rest=FATES["rest"], escape=FATES["escape"])
    # Alive is what is large, whatever its rho; the one that rests exactly at the threshold counts as too low.
    assert verdict.fates == ["alive", "dead", "suppressed", "waiting"]
    assert verdict.collapsed == [False, True, True, True]
    assert verdict.mechanisms == ["none", *["strong-augmentation"] * 2, "implicit-regularization"]
    assert verdict.escapes == [None, None, None, 4.0]


def test_without_rest_values_and_escape_times_nothing_is_suppressed_and_no_time_is_given():
    verdict = judge(dimensions(FATES["values"], FATES["ratios"]))
    assert verdict.fates == ["alive", "dead", "waiting", "waiting"]
    assert verdict.escapes == [None] * 4
    assert "waiting)" in verdict.sentence


def test_unbounded_dimensions_do_not_turn_waiting_ones_into_suppressed_ones():
    # The largest grows for ever; the others rest at 1.1. One has arrived there, the other is still on its way.
    rest = torch.tensor([float("inf"), 1.1, 1.1], dtype=torch.float64)
    verdict = judge(dimensions([1e3, 1.0, 4e-4], [0.0, 0.5, 0.5]), scale=1.0, rest=rest)
    assert verdict.fates == ["alive", "suppressed", "waiting"]
    # Where the rest value itself is negligible beside the others, a dimension is suppressed on its way already.
    rest = torch.tensor([2.0, 1e-3], dtype=torch.float64)
    assert judge(dimensions([1.0, 1e-5], [0.2, 0.9]), scale=1.0, rest=rest).fates == ["alive", "suppressed"]


def test_what_is_not_a_number_is_not_judged():
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        judge(dimensions([1.0, float("nan")], [0.2, 0.9]))
