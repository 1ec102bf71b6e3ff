"""Tests on the order of rows: coverage and power against a known truth, few seeds, equal values, missing probes."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bridge import small
from scipy.integrate import quad
from scipy.stats import chi2, norm, t

from dyncollapse.bridge import Run, compare
from dyncollapse.bridge.evaluation.orders import Measured, compare_pair, contradictions, detectable_shift, holm, orders

DRAWS = 600
OUTPUTS = {"mlp": 128, "linear": 128, "none": 512, "diagonal": 512, "orthogonal": 512}


def share_within(found, expected, draws=DRAWS):
    """Whether a share of so many draws is within four standard errors of what it should be."""
    return abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def drawn(generator, shift, seeds, *, own=1.0, common=3.0, unshared=False):
    """Two rows that differ by `shift` on average; runs of one seed share a deviation."""
    luck = generator.normal(0, common, seeds)
    a, b = (luck + generator.normal(0, own, seeds) for _ in range(2))
    first = 100 if unshared else 0
    return Measured("a", 60, dict(enumerate(50 + shift + a))), Measured("b", 50, dict(enumerate(50 + b, first)))


def run(head, seed, top1, *, sub=None, **settings):
    recipe = replace(small(projector=head, seed=seed, **settings), data="photos")
    facts = {"data": "photos", "images": 1000, "representation_dim": 512, "steps": 10}
    facts["embedding_dim"] = OUTPUTS.get(head, 90)
    values = {512: top1, 90: sub}
    probes = [
        {"method": "sgd", "dimensions": dim, "top1": value, "error": 1.0, "step": 10}
        for dim, value in values.items()
        if value is not None
    ]
    return Run(Path(f"{head}-{seed}"), recipe, facts, probes, None, [{"step": 10, "loss": 1.0}])


def by_pair(found):
    first_words = [tuple(order[name].split(",")[0].split(" (")[0] for name in ("better", "worse")) for order in found]
    return dict(zip(first_words, found, strict=True))


# --- The test


@pytest.mark.parametrize("unshared", [False, True], ids=["paired", "Welch"])
def test_intervals_cover_the_true_difference_as_often_as_they_say(unshared):
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(DRAWS):
        order = compare_pair(*drawn(generator, 2.0, 3, unshared=unshared))
        assert order["test"] == ("Welch t" if unshared else "paired t")
        low, high = order["interval"]
        covered += low <= 2.0 <= high
    # Welch's degrees of freedom are an approximation, on the safe side for rows of one spread.
    assert share_within(covered / DRAWS, 0.95) or (unshared and covered / DRAWS > 0.95)


def test_equal_rows_are_called_different_in_five_per_cent_of_cases():
    generator = np.random.default_rng(1)
    verdicts = [compare_pair(*drawn(generator, 0.0, 4))["verdict"] for _ in range(DRAWS)]
    assert share_within(1 - verdicts.count("undecided") / DRAWS, 0.05)


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_detectable_difference_is_detected_in_four_of_five_cases(seeds):
    generator = np.random.default_rng(seeds)
    shift = detectable_shift(seeds - 1) * math.sqrt(2 / seeds)  # the difference of two runs varies by the root of 2
    verdicts = [compare_pair(*drawn(generator, shift, seeds))["verdict"] for _ in range(DRAWS)]
    assert share_within(verdicts.count("holds") / DRAWS, 0.8)


def test_pairs_of_seeds_see_smaller_differences():
    generator = np.random.default_rng(2)
    paired, apart = (
        [compare_pair(*drawn(generator, 2.0, 5, unshared=unshared))["detectable"] for _ in range(60)]
        for unshared in (False, True)
    )
    assert np.median(paired) < np.median(apart) / 2


@pytest.mark.parametrize("df", [1, 1.5, 2, 5, 40, 1000])
def test_the_power_is_that_of_an_integral_over_the_spread(df):
    beyond, shift = t.ppf(0.975, df), detectable_shift(df)

    def density(v):
        return norm.cdf(shift - beyond * math.sqrt(v / df)) * chi2.pdf(v, df)

    power = quad(density, 0, 1e-3)[0] + quad(density, 1e-3, df + 40 * math.sqrt(df), limit=200)[0]
    assert power == pytest.approx(0.8, abs=1e-4)


def test_holm_bounds_all_pairs_together():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    # By the definition: reject in ascending order while p <= level / (pairs left).
    generator = np.random.default_rng(3)
    for _ in range(50):
        p, level = generator.uniform(0, 0.1, 6), 0.05
        rejected = set()
        for left, k in zip(range(6, 0, -1), np.argsort(p), strict=True):
            if p[k] > level / left:
                break
            rejected.add(int(k))
        assert rejected == {k for k, adjusted in enumerate(holm(p)) if adjusted <= level}


# --- What cannot be decided


def test_one_seed_leaves_every_order_undecided_and_bounds_the_error():
    a, b = Measured("a", 60, {0: 90.0}, 1.2), Measured("b", 50, {0: 10.0, 1: 12.0}, 0.5)
    order = compare_pair(a, b)
    assert (order["verdict"], order["interval"], order["p"], order["detectable"]) == ("undecided", None, None, None)
    assert order["difference"] == 80.0  # of the seed that both have
    assert compare_pair(Measured("c", 60, {2: 90.0}), b)["difference"] == 79.0
    assert order["probe_error"] == pytest.approx(1.3)
    assert (order["seeds"], order["shared"], order["test"]) == ([1, 2], 1, "none")
    assert order["reason"] == "one seed: the spread over seeds is unknown"


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_differences_without_a_spread_decide_nothing(shift):
    top1 = {seed: 60.1 + 0.3 * seed for seed in range(3)}
    moved = {seed: value + shift for seed, value in top1.items()}
    order = compare_pair(Measured("a", 60, moved), Measured("b", 50, top1))
    assert (order["verdict"], order["interval"]) == ("undecided", None)
    assert order["reason"] == "the seeds show no spread by which to judge"
    json.dumps(order, allow_nan=False)


def test_one_shared_seed_is_no_pair_and_several_runs_of_a_seed_are_one():
    a, b = Measured("a", 60, {0: 10.0, 1: 11.0}), Measured("b", 50, {1: 5.0, 2: 6.0, 3: 7.0})
    assert compare_pair(a, b)["test"] == "Welch t"
    twice = [run("mlp", 0, 60.0), run("mlp", 0, 62.0), run("mlp", 1, 64.0), run("none", 0, 50.0), run("none", 1, 50.5)]
    (order,) = orders(twice)
    assert (order["seeds"], order["shared"]) == ([2, 2], 2)
    assert order["difference"] == pytest.approx((61 - 50 + 64 - 50.5) / 2)


# --- Rows


def some_runs():
    top1 = {"mlp": (60, 62, 64), "none": (50, 51, 53), "linear": (70, 71, 73.5)}
    runs = [run(head, seed, float(value)) for head, values in top1.items() for seed, value in enumerate(values)]
    return [
        *runs,
        *(run("low-rank-diagonal", seed, (62.0, 61.0, 63.0)[seed], sub=40.0 + 1.5 * seed) for seed in range(3)),
    ]


def test_every_pair_of_the_papers_rows_has_a_verdict():
    found = by_pair(orders(some_runs()))
    names = ("nonlinear", "DirectCLR", "linear", "none", "DirectCLR probed on the sub-vector")
    assert [*found] == [*itertools.combinations(names, 2)]
    assert found["nonlinear", "none"]["verdict"] == "holds"
    assert found["nonlinear", "linear"]["verdict"] == "reversed"
    assert found["nonlinear", "DirectCLR"]["verdict"] == "undecided"
    assert found["DirectCLR", "DirectCLR probed on the sub-vector"]["paper"] == pytest.approx(62.7 - 47.9)
    assert all(order["p_holm"] >= order["p"] for order in found.values())
    sentences = contradictions([*found.values()])
    assert "linear, 1 layer beats nonlinear, 2 layers by 9.5 here; in the paper it loses by 5.4" in sentences
    assert len(sentences) == sum(order["verdict"] == "reversed" for order in found.values())


def test_missing_probes_and_rows_that_the_paper_lacks_are_left_out():
    runs = [*some_runs(), run("diagonal", 0, None), *(run("linear", seed, 60.0, out_dim=90) for seed in range(3))]
    runs[-3:] = [replace(one, facts=one.facts | {"embedding_dim": 90}) for one in runs[-3:]]
    found = by_pair(orders(runs))
    assert not any("diagonal" in name for pair in found for name in pair if "DirectCLR" not in name)
    assert found["nonlinear", "linear"]["difference"] == pytest.approx(-9.5)  # not the matched row
    assert orders([]) == orders([run("mlp", 0, 60.0)]) == orders([run("mlp", 0, None), run("none", 0, 50.0)]) == []


def test_only_rows_of_the_same_settings_are_compared():
    longer = [run("mlp", seed, 80.0 + seed * seed, epochs=3) for seed in range(3)]
    longer += [run("none", seed, 90.0 - seed, epochs=3) for seed in range(3)]
    found = orders([*some_runs(), *longer, run("linear", 0, 1.0, temperature=0.7)])
    assert {order["setting"] for order in found} == {"", "epochs 3"}
    assert len(found) == 10 + 1
    (apart,) = (order for order in found if order["setting"])
    assert apart["difference"] == pytest.approx(81 + 2 / 3 - 89)
    sentences = contradictions([apart | {"verdict": "reversed"}])
    assert sentences == ["none beats nonlinear, 2 layers by 7.3 here (epochs 3); in the paper it loses by 15.0"]


def test_a_comparison_is_plain_json():
    compared = compare([*some_runs(), run("linear", 5, 3.0, temperature=0.7)])
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared
    assert compared["contradictions"] == contradictions(compared["orders"])


def test_rows_that_were_probed_unlike_are_not_compared():
    top1 = {"mlp": (55.0, 56.5, 57.0), "none": (50.0, 51.0, 52.0)}
    rows = [run(head, seed, one) for head in top1 for seed, one in enumerate(top1[head])]
    for one in rows:
        one.probes[0]["train"] = 2000
    (order,) = orders(rows)
    assert (order["verdict"], order["test"]) == ("holds", "paired t")
    rows[0].probes[0]["train"] = 10_000
    (order,) = orders(rows)
    assert (order["verdict"], order["test"], order["interval"]) == ("undecided", "none", None)
    assert order["reason"] == "the rows were probed in different ways: sgd on 10000 images, sgd on 2000 images"
    assert contradictions([order]) == []
