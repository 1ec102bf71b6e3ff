import math

import pytest

from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.presets import AUTHORS_CASES, PAPER, resolve


def test_nothing_given_is_the_papers_setting():
    c = resolve({})
    assert c == Configuration()
    assert all(getattr(c, name) == value for name, value in PAPER.pinned.items())


@pytest.mark.parametrize("case", [1, 2])
def test_authors_code_is_one_option_away(case):
    c = resolve({"preset": "authors-code", "case": case})
    expected = {**AUTHORS_CASES[case].pinned, **AUTHORS_CASES[case].suggested}
    assert {name: getattr(c, name) for name in expected} == expected
    assert (c.loss, c.temperature, c.views, c.data_var) == ("dot", 0.1, "two-sided", 1.0)
    assert (c.batch_size, c.pool, c.steps) == (128, 10_000, 10_000)


def test_authors_code_cases_are_their_two_settings():
    first, second = (resolve({"preset": "authors-code", "case": case}) for case in (1, 2))
    assert (first.lr, first.depth, first.bias, first.aug_dim, first.init) == (1e-3, 1, True, 8, "uniform")
    assert (second.lr, second.depth, second.bias, second.aug_dim, second.init) == (1e-2, 2, False, 16, "spectrum")
    assert math.isclose(second.aug_strength**0.5, 1e-3)  # the authors' noise is a standard deviation
    assert second.init_rate == 0.35


def test_sizes_of_a_preset_can_be_changed():
    c = resolve({"preset": "authors-code", "case": 2, "depth": 3, "steps": 7, "dim": 4, "aug_dim": 1})
    assert (c.depth, c.steps, c.dim, c.aug_dim) == (3, 7, 4, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "paper", "loss": "dot"}, "preset paper means loss infonce, not dot"),
        ({"preset": "paper", "views": "two-sided"}, "means views one-sided"),
        ({"preset": "authors-code", "temperature": 0.5}, "means temperature 0.1"),
        ({"preset": "authors-code", "case": 1, "bias": False}, "means bias on, not off"),
        ({"preset": "authors-code", "case": 3}, "cases 1 and 2"),
        ({"preset": "authors-code", "dynamics": ("population",)}, "preset authors-code has them; drop one of them"),
        ({"bias": True, "dynamics": ("population",)}, "bias is on; drop one of them"),
        ({"preset": "nobody"}, "choose one of paper, authors-code"),
        ({"case": 1}, "add it or drop case"),
        ({"aug_strength": -1.0}, "aug_strength is -1.0"),
        ({"aug_strength": float("nan")}, "aug_strength is nan"),
        ({"aug_strength": float("inf")}, "aug_strength is inf"),
        ({"dim": 4, "aug_dim": 5}, "aug_dim is 5; it must be between 0 and dim 4"),
        ({"batch_size": 64, "pool": 63}, "pool is 63 with batch_size 64"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"steps": 0}, "steps is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"runs": 0}, "runs is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"loss": "hinge"}, "choose one of infonce, dot, ntxent, spectral"),
        ({"views": "both"}, "choose one of one-sided, two-sided"),
        ({"activation": "gelu"}, "choose one of linear, relu"),
        ({"init": "zeros"}, "choose one of gaussian, uniform, spectrum"),
        ({"init_rate": 0.3}, "init gaussian has none"),
        ({"dtype": "float16"}, "choose one of float32, float64"),
        ({"dynamics": ("sgd", "sgd")}, "each once"),
        ({"dynamics": ("ode",)}, "choose one of sgd, flow, population"),
        ({"dynamics": ("population",), "bias": True}, "drop one of them"),
        (
            {"invariance": 2.0},
            "invariance is 2.0, but the infonce loss has none; drop it, or give loss vcreg or vicreg",
        ),
        ({"loss": "vcreg", "invariance": -1}, "invariance is -1.0; it must be between 0 and 1e15"),
        ({"loss": "barlow-normalised", "temperature": 0.1}, "the barlow-normalised loss has none"),
        (
            {"loss": "barlow-normalised", "dynamics": ("population",)},
            "population flow of barlow-normalised with",
        ),
    ],
)
def test_bad_settings_are_reported_in_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(given)
    assert "\n" not in str(caught.value)


def test_implied_settings():
    assert resolve({"loss": "ntxent"}).views == "two-sided"
    assert resolve({"loss": "dot"}).temperature == 0.1
    assert resolve({"loss": "vcreg"}).invariance == resolve({"loss": "vicreg"}).invariance == 1.0
    assert resolve({"loss": "barlow-normalised"}).init_scale == resolve({"loss": "ntxent"}).init_scale == 1.0
    assert resolve({"loss": "barlow"}).init_scale == 0.1
    assert resolve({"init": "spectrum"}).init_rate == 0.35
    assert resolve({"init": "uniform"}).init_scale == 1.0
    assert resolve({"dim": 6}).aug_dim == 3


def test_presets_augment_their_share_of_any_dimension():
    assert resolve({"preset": "authors-code", "case": 1, "dim": 32}).aug_dim == 16
    assert resolve({"preset": "authors-code", "case": 2, "dim": 32}).aug_dim == 32
