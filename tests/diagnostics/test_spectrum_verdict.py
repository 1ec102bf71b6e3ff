from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse import COLLAPSED_BELOW
from dyncollapse.diagnostics.causes import InputCount, ViewFates
from dyncollapse.diagnostics.spectrum_verdict import collapse_level, judge_spectrum
from dyncollapse.diagnostics.verdict import Fate, joint_mechanism

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


def judged(**others):
    """The verdict on MEASURED; `by_views` are fates by direction, and only what is asked for may be used."""
    asked = {"threshold": 1e-4, "floor": 1e-10, "seen": 6} | others
    by_views, explained = asked.pop("by_views", None), asked.pop("explained", None)
    if by_views is not None:
        asked["from_views"] = lambda collapsed: ViewFates({k: Fate(by_views[k]) for k in collapsed}, explained)
    return judge_spectrum(MEASURED, **asked)


LOST = ["unresolved"] * 2
FOUR_INPUTS = InputCount(width=6, varying=6, growing=4, dying=1, silent=1)


@pytest.mark.parametrize(
    ("others", "fates", "mechanism"),
    [
        ({}, ["unexplained"] * 2 + LOST, "unknown"),
        ({"by_views": {2: "dead", 3: "dead"}}, ["dead"] * 2 + LOST, "strong-augmentation"),
        ({"by_views": {2: "suppressed", 3: "suppressed"}}, ["suppressed"] * 2 + LOST, "strong-augmentation"),
        ({"by_views": {2: "waiting", 3: "waiting"}}, ["waiting"] * 2 + LOST, "implicit-regularization"),
        ({"by_views": {2: "dead", 3: "waiting"}}, ["dead", "waiting", *LOST], "both"),
        ({"by_views": {2: "unexplained", 3: "waiting"}}, ["unexplained", "waiting", *LOST], "implicit-regularization"),
        (
            {"by_views": {2: "waiting", 3: "waiting"}, "counted": FOUR_INPUTS},
            ["waiting"] * 2 + ["dead", "suppressed"],
            "both",
        ),
        (
            {"by_views": {2: "waiting", 3: "dead"}, "counted": FOUR_INPUTS},
            ["waiting", "dead", "waiting", "suppressed"],
            "both",
        ),
        (
            {"by_views": {2: "dead", 3: "suppressed"}, "counted": InputCount(6, 6, 0, 0, 0)},
            ["dead", "suppressed", *LOST],
            "strong-augmentation",
        ),
        ({"seen": 4}, ["unexplained"] * 2 + ["unseen"] * 2, "unknown"),
        ({"seen": 2}, ["unseen"] * 4, "none"),
        ({"threshold": 0.0}, ["alive"] * 4, "none"),
        ({"room": 6}, ["unexplained"] * 2 + LOST, "unknown"),
        ({"room": 2}, ["structural"] * 4, "width"),
        ({"room": 4, "seen": 4}, ["unexplained"] * 2 + ["structural"] * 2, "unknown"),
        ({"room": 3, "by_views": {2: "dead"}}, ["dead"] + ["structural"] * 3, "strong-augmentation"),
        ({"room": 1, "threshold": 1e-12}, ["alive"] * 2 + ["structural"] * 2, "width"),
    ],
)
def test_measured_dimensions_meet_their_fates(others, fates, mechanism):
    verdict = judged(**others)
    assert verdict.fates == ["alive"] * 2 + fates
    assert verdict.mechanism == mechanism
    assert verdict.collapsed == [fate not in ("alive", "unseen") for fate in verdict.fates]
    assert verdict.escapes == [None] * 6
    assert verdict.threshold == others.get("threshold", 1e-4)


def test_exactly_the_threshold_is_collapsed_and_exactly_the_floor_is_lost():
    spectrum = spectrum_of([1.0, 1e-4, 1e-10])
    verdict = judge_spectrum(
        spectrum, 1e-4, 1e-10, 3, from_views=lambda collapsed: ViewFates(dict.fromkeys(collapsed, Fate.DEAD))
    )
    assert verdict.fates == ["alive", "dead", "unresolved"]


def test_one_known_mechanism_speaks_for_the_unknown():
    def mechanism(*fates):
        return joint_mechanism(Fate(fate).mechanism for fate in fates)

    strong, slow, unknown = "strong-augmentation", "implicit-regularization", "unknown"
    assert mechanism() == mechanism("alive", "unseen") == "none"
    assert mechanism("alive", "unexplained") == mechanism("structural", "unresolved") == unknown
    assert mechanism("alive", "structural") == "width"
    assert mechanism("unexplained", "dead") == mechanism("structural", "suppressed") == strong
    assert mechanism("waiting", "unresolved", "alive") == mechanism("structural", "waiting") == slow
    assert mechanism("waiting", "dead") == mechanism("unexplained", "waiting", "suppressed", "structural") == "both"


COUNTED = "4 of 6 dimensions collapsed (variance up to 0.0001): "


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"threshold": 0.0}, "No dimension of 6 collapsed."),
        (
            {"threshold": 0.0, "seen": 4},
            "No dimension of 4 collapsed; 2 more cannot be seen with so few distinct samples.",
        ),
        (
            {"threshold": 5e-13},
            "1 of 6 dimensions collapsed (variance up to 5e-13): "
            "1 without variance clearly above rounding; if they are outputs of a linear layer, its inputs in "
            "both views (`inputs` and `input_positives`) can show the cause.",
        ),
        (
            {"seen": 4},
            "2 of 4 dimensions collapsed (variance up to 0.0001): 2 above the noise floor; other views of the same "
            "samples would show the cause; 2 more cannot be seen with so few distinct samples.",
        ),
        (
            {"by_views": {2: "dead", 3: "waiting"}, "counted": InputCount(6, 6, 0, 2, 0), "views": "one-sided"},
            COUNTED + "2 by strong augmentation (dead: augmentation beats data there), "
            "1 by implicit regularization (waiting: data beats augmentation there), "
            "1 without variance clearly above rounding; the inputs do not show the cause either.",
        ),
        (
            {"by_views": {2: "suppressed", 3: "waiting"}, "counted": InputCount(6, 6, 0, 1, 2), "explained": 0.071},
            COUNTED + "1 by strong augmentation (dead: the views are negatively correlated there), "
            "2 by strong augmentation (suppressed: the views share no signal there above a correlation of 0.071), "
            "1 by implicit regularization (waiting: the views share signal there).",
        ),
        (
            {"by_views": {2: "unexplained"}, "room": 3, "views": "one-sided"},
            COUNTED + "3 for want of width (the last linear layer reads 3 units), "
            "1 for a cause that is open (rho is within its sampling error of 1).",
        ),
    ],
)
def test_sentence_about_measured_dimensions(others, sentence):
    assert judged(**others).sentence == sentence


def test_waiting_dimensions_take_the_places_that_the_inputs_leave():
    # 24 directions can grow: 16 live, 8 wait above the floor, so nothing is left for the 8 below it.
    spectrum = torch.tensor([1.0] * 16 + [1e-6] * 8 + [1e-20] * 8, dtype=torch.float64)
    for growing, hidden in ((24, ["dead"] * 8), (27, ["waiting"] * 3 + ["dead"] * 5), (20, ["dead"] * 8)):
        fates = judge_spectrum(
            spectrum,
            1e-4,
            1e-15,
            32,
            from_views=lambda collapsed: ViewFates(dict.fromkeys(collapsed, Fate.WAITING)),
            counted=InputCount(40, 40, growing, 8, 0),
        ).fates
        assert fates == ["alive"] * 16 + ["waiting"] * 8 + hidden


def test_dimensions_that_may_use_any_input_leave_the_hidden_ones_open():
    # 4 directions grow and 4 are lost; 4 dimensions live, and 4 are hidden.
    spectrum = torch.tensor([1.0] * 4 + [1e-20] * 4, dtype=torch.float64)
    for lost, counted in (("dead", InputCount(8, 8, 4, 4, 0)), ("suppressed", InputCount(8, 8, 4, 0, 4))):
        for sure, hidden in ((4, [lost] * 4), (3, [lost] * 3 + ["unresolved"]), (0, ["unresolved"] * 4)):
            judged_so = judge_spectrum(spectrum, 1e-4, 1e-15, 8, counted=replace(counted, alive=sure))
            assert judged_so.fates == ["alive"] * 4 + hidden


def test_dimensions_without_a_cause_may_use_any_input():
    verdict = judged(by_views={2: "unexplained", 3: "waiting"}, counted=InputCount(6, 6, 5, 1, 0))
    assert verdict.fates == ["alive"] * 2 + ["unexplained", "waiting", "waiting", "unresolved"]
