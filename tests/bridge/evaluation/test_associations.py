"""Rank correlations of top-1 with what the diagnosis measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bridge import small
from scipy.stats import rankdata

from dyncollapse.bridge import Run, find_runs, finish_run
from dyncollapse.bridge.evaluation.associations import FEWEST, MEASURES, associations, rank_correlation


def run(head, seed, top1, rank, *, data="photos", ratios=(2.0, 1.0, 0.5), layers=(0.3, 0.9), loss=1.0):
    facts = {"data": data, "images": 1000, "representation_dim": 512, "embedding_dim": 128, "steps": 10}
    probes = [] if top1 is None else [{"method": "sgd", "dimensions": 512, "top1": top1, "error": 1.0, "step": 10}]
    space = {
        "measures": {"rankme": rank + 1, "effective_rank": rank, "participation_ratio": None},
        "verdict": {"collapsed": 3, "mechanism": "none"},
        "augmentation_ratio": [*ratios],
    }
    diagnosis = {
        "spaces": {"representation": space, "embedding": space},
        "config": {"split": "train", "views": "two-sided"},
        "layers": [{"alignment": one} for one in layers],
    }
    recipe = replace(small(projector=head, seed=seed), data=data)
    return Run(Path(f"{head}-{seed}"), recipe, facts, probes, diagnosis, [{"step": 10, "loss": loss}])


def by_measure(found):
    return {one["measure"]: one for one in found}


def test_measures_that_go_with_top1_show_it_over_runs_and_rows():
    heads = ("mlp", "linear", "none", "diagonal", "orthogonal")
    runs = [
        run(head, seed, 50.0 + 10 * k + seed, 5.0 + k, ratios=[1.5] * (5 - k) + [0.95, 0.5], loss=2.0 - k)
        for k, head in enumerate(heads)
        for seed in range(2)
    ]
    found = by_measure(associations(runs))
    assert [*found] == [*MEASURES]
    rank, directions = found["effective rank r"], found["directions rho >= 1, r"]
    assert (rank["runs"], rank["rows"], rank["rows_spearman"]) == (10, 5, 1.0)
    assert 0.9 < rank["spearman"] < 1.0  # ranks within a row are tied
    assert rank["interval"][0] > 0.8
    assert directions["rows_spearman"] == found["final loss"]["rows_spearman"] == -1.0
    assert found["collapsed dimensions r"]["spearman"] is None  # it does not vary
    assert found["participation ratio r"]["runs"] == 0
    assert found["alignment of last layers"]["spearman"] is None


def test_ratios_are_counted_at_and_near_one():
    get = {name: MEASURES[name](run("mlp", 0, 50.0, 5.0, ratios=(3.0, 1.0, 0.95, None, 0.6))) for name in MEASURES}
    assert get["directions rho >= 1, r"] == 2
    assert get["directions rho >= 0.9, r"] == 3
    assert get["largest/median rho, r"] == pytest.approx(3.0 / 0.975)
    assert get["alignment of last layers"] == 0.9
    bare = replace(run("mlp", 0, 50.0, 5.0), diagnosis=None, log=[])
    assert {measure(bare) for measure in MEASURES.values()} == {None}


def test_few_runs_other_images_and_missing_probes_do_not_count():
    runs = [run("mlp", seed, 50.0 + seed, 5.0 + seed) for seed in range(FEWEST)]
    assert associations(runs[1:]) == []
    assert associations([*runs[1:], run("none", 0, None, 1.0)]) == []
    others = [run("none", seed, 90.0, 1.0, data="digits") for seed in range(3)]
    assert by_measure(associations([*runs, *others]))["effective rank r"]["runs"] == FEWEST


def test_the_correlation_is_that_of_ranks():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 30)).round(1)  # with ties
    r, (low, high) = rank_correlation([*zip(x, y, strict=True)])
    assert r == pytest.approx(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    assert low < r < high
    assert rank_correlation([(1, 2), (2, 1)]) == (None, None)
    assert rank_correlation([(1, 1), (2, 1), (3, 1)]) == (None, None)
    assert rank_correlation([(1, 1), (2, 2), (3, 3)]) == (1.0, None)


@pytest.mark.parametrize("n", [5, 8, 20])
def test_a_perfect_order_is_bounded_by_that_of_a_swap(n):
    numbers = [*range(n)]
    r, (low, high) = rank_correlation([*zip(numbers, numbers, strict=True)])
    swapped = [1, 0, *numbers[2:]]
    nearly, (near_low, _) = rank_correlation([*zip(numbers, swapped, strict=True)])
    assert (r, high) == (1.0, 1.0)
    assert nearly == pytest.approx(1 - 12 / (n * (n * n - 1)))
    assert low == pytest.approx(near_low)


@pytest.mark.parametrize("true", [0.0, 0.6])
def test_intervals_cover_the_correlation(true):
    generator, draws, n = np.random.default_rng(1), 1000, 12
    expected = 6 / np.pi * np.arcsin(true / 2)  # Spearman's of a bivariate normal distribution
    covered = 0
    for _ in range(draws):
        x, noise = generator.normal(size=(2, n))
        _, (low, high) = rank_correlation([*zip(x, true * x + np.sqrt(1 - true**2) * noise, strict=True)])
        covered += low <= expected <= high
    # At a dozen runs the interval is an approximation: two percentage points, and four standard errors of the share.
    assert abs(covered / draws - 0.95) < 0.02 + 4 * np.sqrt(0.95 * 0.05 / draws)


def test_a_real_run_has_every_measure(tmp_path):
    finish_run(small(projector="linear"), tmp_path / "run", most=300)
    (one,) = find_runs([tmp_path])
    got = {name: measure(one) for name, measure in MEASURES.items()}
    assert None not in got.values(), got
    assert 0 <= got["directions rho >= 1, r"] <= got["directions rho >= 0.9, r"] <= 128
    assert 0 <= got["alignment of last layers"] <= 1
