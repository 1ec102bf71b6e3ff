import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import normal, random_covariance, rotation

from dyncollapse import (
    COLLAPSED_BELOW,
    Dimensions,
    GaussianTask,
    Objective,
    Verdict,
    gaussian_init,
    judge,
    linear_dimensions,
    mode_dimensions,
    sampled_dimensions,
    uniform_biases,
)
from dyncollapse.diagnosis import collapse_level, judge_spectrum, moment, natural_scale

VIEWS = ("one-sided", "two-sided")
# 40 000 samples: five standard errors of a variance, 5 sqrt(2 / n), and of a standard deviation, half of that.
SAMPLES = 40_000
FIVE_SIGMA = 5 * (2 / SAMPLES) ** 0.5


def dimensions(values, ratios):
    values, ratios = torch.tensor(values, dtype=torch.float64), torch.tensor(ratios, dtype=torch.float64)
    return Dimensions(values, torch.ones_like(values), ratios, ratios)


def test_linear_dimensions_follow_the_right_singular_vectors(generator):
    s, a = random_covariance(generator, 4), random_covariance(generator, 4)
    weights = gaussian_init([4, 3, 5], generator, (2,), 1.0)
    for views in VIEWS:
        got = linear_dimensions(weights, GaussianTask(s, a, views))
        assert got.singular_value.shape == (2, 4)
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
    [(Objective(), 1.0), (Objective("dot", 0.25), 0.5), (Objective("spectral"), 1.0), (Objective("ntxent"), 0.0)],
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


def test_sentence_counts_each_mechanism():
    assert judge(dimensions([1.0, 0.5], [0.0, 0.0])).sentence == "No dimension of 2 collapsed."
    sentence = judge(dimensions([1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 2.0, 2.0])).sentence
    assert sentence.startswith("3 of 4 dimensions collapsed: 2 by strong augmentation")
    assert " and 1 by implicit regularization" in sentence


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


def test_mode_dimensions_need_a_square_product():
    with pytest.raises(ValueError, match="square"):
        mode_dimensions((torch.ones(2, 3, dtype=torch.float64),), GaussianTask.block(3, 1, 1.0))


FATES = {
    "values": [1.0, 0.0, 0.001, 0.002],
    "ratios": [2.0, 1.0, 0.9, 0.5],
    "rest": torch.tensor([1.0, 0.0, COLLAPSED_BELOW, 0.5], dtype=torch.float64),
    "escape": torch.tensor([1.0, 2.0, 3.0, 4.0]),
}


def test_fates_are_told_apart():
    verdict = judge(dimensions(FATES["values"], FATES["ratios"]), 0.0, FATES["rest"], FATES["escape"])
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


@pytest.mark.parametrize(
    ("time", "per_step", "told"),
    [
        (12.3456, None, "t = 12.3"),
        (12.3456, 0.1, "t = 12.3 (step 123)"),
        (1234567.0, 0.5, "t = 1.23e+06 (step 2.47e+06)"),
        (123456.0, None, "t = 123000"),
        (0.0, 0.1, "t = 0 (step 0)"),
        (float("inf"), None, "never"),
        (float("inf"), 0.1, "never"),
    ],
)
def test_moment_has_three_digits_and_the_step(time, per_step, told):
    assert moment(time, per_step) == told


INF = float("inf")


@pytest.mark.parametrize(
    ("escape", "per_step", "told"),
    [
        ([50.0], None, "waiting, to escape by t = 50 at the present force)"),
        ([50.0], 0.1, "waiting, to escape by t = 50 (step 500) at the present force)"),
        ([50.0, 50.01], None, "waiting, to escape by t = 50 at the present force)"),
        ([90.0, 50.0, 70.0], None, "waiting, to escape between t = 50 and t = 90 at the present force)"),
        ([90.0, 50.0], 0.5, "waiting, to escape between t = 50 (step 100) and t = 90 (step 180) at the present force)"),
        ([INF], 0.1, "waiting, never to escape as things stand)"),
        ([INF, 50.0, INF], None, "waiting, to escape by t = 50 at the present force, 2 of them never)"),
        (
            [90.0, INF, 50.0],
            0.5,
            "waiting, to escape between t = 50 (step 100) and t = 90 (step 180) at the present force, 1 of them never)",
        ),
    ],
)
def test_sentence_says_when_waiting_dimensions_escape(escape, per_step, told):
    k = len(escape)
    found = dimensions([1.0] + [0.0] * k, [0.5] * (k + 1))
    verdict = judge(found, rest=torch.ones(k + 1), escape=torch.tensor([7.0, *escape]), time_per_step=per_step)
    assert verdict.escapes == [None, *torch.tensor(escape).tolist()]
    assert verdict.sentence == (
        f"{k} of {k + 1} dimensions collapsed: {k} by implicit regularization (data beats augmentation there: {told}."
    )


@pytest.mark.parametrize(
    ("ratios", "rest", "told"),
    [
        ([0.0, 2.0, 2.0], [1.0, 0.0, 0.0], "2 by strong augmentation (dead)."),
        ([0.0, 0.9, 0.9], [1.0, 1e-3, 1e-3], "2 by strong augmentation (too low at rest)."),
        ([0.0, 0.9, 2.0], [1.0, 1e-3, 0.0], "2 by strong augmentation (1 dead, 1 too low at rest)."),
    ],
)
def test_sentence_tells_the_dead_from_those_at_rest(ratios, rest, told):
    found = dimensions([1.0, 0.0, 0.0], ratios)
    for per_step in (None, 0.1):
        verdict = judge(found, rest=torch.tensor(rest), escape=torch.full((3,), 9.0), time_per_step=per_step)
        assert verdict.sentence == f"2 of 3 dimensions collapsed: {told}"
        assert verdict.escapes == [None] * 3


def test_sentence_joins_all_three_fates():
    found = dimensions([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.9, 0.5])
    rest, escape = torch.tensor([1.0, 0.0, 1e-3, 0.5]), torch.tensor([9.0] * 4)
    assert judge(found, rest=rest, escape=escape, time_per_step=0.1).sentence == (
        "3 of 4 dimensions collapsed: 2 by strong augmentation (1 dead, 1 too low at rest) and "
        "1 by implicit regularization (data beats augmentation there: waiting, to escape by t = 9 (step 90) "
        "at the present force)."
    )


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


# --- Measured spectra


def spectrum_of(values):
    return torch.tensor(values, dtype=torch.float64)


def fired(spectrum):
    return int((spectrum <= collapse_level(spectrum)).sum())


@given(st.integers(1, 3000), st.floats(0, 8), st.floats(-100, 100))
def test_no_power_law_is_a_cliff(length, exponent, power):
    assert fired(10**power * torch.arange(1, length + 1, dtype=torch.float64).pow(-exponent)) == 0


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 8), st.floats(-12, -5), st.floats(-100, 100))
def test_a_cliff_is_one_wherever_it_stands(alive, gone, exponent, depth, power):
    ranks = torch.arange(1, alive + gone + 1, dtype=torch.float64)
    spectrum = 10**power * ranks.pow(-exponent)
    spectrum[alive:] *= 10**depth
    # Along a power law the first value that falls to 1e-5 of the one above it lies below 1e-4 of their mean.
    assert fired(spectrum) == gone


@given(st.lists(st.floats(-12, 0), min_size=1, max_size=20), st.floats(-100, 100))
def test_collapse_level_has_the_unit_of_variances(powers, power):
    spectrum = spectrum_of(sorted((10**p for p in powers), reverse=True))
    assert collapse_level(10**power * spectrum) == pytest.approx(10**power * collapse_level(spectrum), rel=1e-9)


@given(st.lists(st.floats(-3, 0), min_size=1, max_size=20), st.integers(1, 20))
def test_zeros_below_are_a_cliff_under_the_mean_of_the_rest(powers, zeros):
    alive = sorted((10**p for p in powers), reverse=True)
    level = collapse_level(spectrum_of(alive + [0.0] * zeros))
    assert level == pytest.approx(COLLAPSED_BELOW**2 * 10 ** (sum(powers) / len(powers)), rel=1e-9)
    assert fired(spectrum_of(alive + [0.0] * zeros)) == zeros


def test_collapse_level_of_one_value_and_of_none():
    assert collapse_level(spectrum_of([3.0])) == pytest.approx(3 * COLLAPSED_BELOW**2, rel=1e-12)
    assert collapse_level(spectrum_of([0.0])) == collapse_level(spectrum_of([0.0] * 4)) == 0
    # Round-off below zero is zero.
    assert collapse_level(spectrum_of([1.0, -1e-20])) == pytest.approx(COLLAPSED_BELOW**2, rel=1e-12)


def test_the_level_is_that_of_the_first_cliff():
    level = collapse_level(spectrum_of([1.0, 1.0, 1e-5, 1e-11, 0.0]))
    assert level == pytest.approx(COLLAPSED_BELOW**2, rel=1e-12)


MEASURED = spectrum_of([1.0, 0.5, 1e-6, 1e-7, 1e-12, 1e-13])


@pytest.mark.parametrize(
    ("others", "fates", "mechanism"),
    [
        ({}, ["unexplained"] * 2 + ["unresolved"] * 2, "unknown"),
        ({"ratio": [0, 0, 1, 2, 0, 0]}, ["dead"] * 2 + ["unresolved"] * 2, "strong-augmentation"),
        ({"ratio": [2, 2, 0.5, 0, 2, 2]}, ["waiting"] * 2 + ["unresolved"] * 2, "implicit-regularization"),
        ({"ratio": [0, 0, 3, 0.9, 0, 0]}, ["dead", "waiting"] + ["unresolved"] * 2, "both"),
        ({"growing": 0}, ["dead"] * 4, "strong-augmentation"),
        ({"growing": 2}, ["dead"] * 4, "strong-augmentation"),
        ({"growing": 3}, ["waiting"] + ["dead"] * 3, "both"),
        ({"growing": 9}, ["waiting"] * 4, "implicit-regularization"),
        ({"ratio": [0, 0, 1, 2, 0, 0], "growing": 3}, ["dead", "dead", "waiting", "dead"], "both"),
        ({"ratio": [0, 0, 1, 0, 0, 0], "growing": 2}, ["dead", "waiting", "dead", "dead"], "both"),
        ({"seen": 4}, ["unexplained"] * 2 + ["unseen"] * 2, "unknown"),
        ({"seen": 2}, ["unseen"] * 4, "none"),
        ({"threshold": 0.0}, ["alive"] * 4, "none"),
    ],
)
def test_measured_dimensions_meet_their_fates(others, fates, mechanism):
    asked = {"threshold": 1e-4, "floor": 1e-10, "seen": 6} | others
    if "ratio" in asked:
        asked["ratio"] = spectrum_of(asked["ratio"])
    verdict = judge_spectrum(MEASURED, **asked)
    assert verdict.fates == ["alive"] * 2 + fates
    assert verdict.mechanism == mechanism
    assert verdict.collapsed == [fate not in ("alive", "unseen") for fate in verdict.fates]
    assert verdict.escapes == [None] * 6
    assert verdict.threshold == asked["threshold"]


def test_exactly_the_threshold_is_collapsed_and_exactly_the_floor_is_lost():
    verdict = judge_spectrum(spectrum_of([1.0, 1e-4, 1e-10]), 1e-4, 1e-10, 3, spectrum_of([0.0, 1.0, 1.0]))
    assert verdict.fates == ["alive", "dead", "unresolved"]


def test_one_known_mechanism_speaks_for_the_unknown():
    def mechanism(*found):
        return Verdict([True] * len(found), list(found), [], [], 0.0, "").mechanism

    strong, slow, unknown = "strong-augmentation", "implicit-regularization", "unknown"
    assert mechanism() == mechanism("none", "none") == "none"
    assert mechanism("none", unknown) == unknown
    assert mechanism(unknown, strong) == mechanism("none", strong) == strong
    assert mechanism(slow, unknown, "none") == slow
    assert mechanism(slow, strong) == mechanism(unknown, slow, strong, "none") == "both"


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"threshold": 0.0}, "No dimension of 6 collapsed."),
        (
            {"threshold": 0.0, "seen": 4},
            "No dimension of 4 collapsed; 2 more cannot be seen with so few distinct samples.",
        ),
        (
            {"threshold": 5e-13},
            "1 dimension of 6 collapsed (variance up to 5e-13): "
            "1 without variance above rounding; if a linear layer made them, its inputs can tell why.",
        ),
        (
            {"seen": 4},
            "2 dimensions of 4 collapsed (variance up to 0.0001): 2 above the noise floor; other views of the same "
            "samples would tell why; 2 more cannot be seen with so few distinct samples.",
        ),
        (
            {"ratio": [0, 0, 3, 0.9, 0, 0], "growing": 2},
            "4 dimensions of 6 collapsed (variance up to 0.0001): "
            "3 by strong augmentation (dead: augmentation beats data there), "
            "1 by implicit regularization (waiting: data beats augmentation there).",
        ),
    ],
)
def test_sentence_about_measured_dimensions(others, told):
    asked = {"threshold": 1e-4, "floor": 1e-10, "seen": 6} | others
    if "ratio" in asked:
        asked["ratio"] = spectrum_of(asked["ratio"])
    assert judge_spectrum(MEASURED, **asked).sentence == told


def test_waiting_dimensions_take_the_places_that_the_inputs_leave():
    # 24 directions can grow: 16 live, 8 wait above the floor, so nothing is left for the 8 below it.
    spectrum = torch.tensor([1.0] * 16 + [1e-6] * 8 + [1e-20] * 8, dtype=torch.float64)
    ratio = torch.full((32,), 0.5, dtype=torch.float64)
    for growing, hidden in ((24, ["dead"] * 8), (27, ["waiting"] * 3 + ["dead"] * 5), (20, ["dead"] * 8)):
        fates = judge_spectrum(spectrum, 1e-4, 1e-15, 32, ratio, growing).fates
        assert fates == ["alive"] * 16 + ["waiting"] * 8 + hidden
