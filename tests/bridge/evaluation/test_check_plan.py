"""What the check chooses within a budget, from made-up speeds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyncollapse.bridge.evaluation.check_plan import (
    BATCH,
    LEAST_BATCH,
    LEAST_EPOCHS,
    LEAST_IMAGES,
    LEAST_STEPS,
    MOST_EPOCHS,
    RATE,
    STEPS_OF_FEW,
    BudgetTooSmall,
    Supply,
    Wishes,
    batch_for,
    choose,
    encoders,
    plan_recipes,
    plan_sentences,
    runs_of,
)
from dyncollapse.bridge.evaluation.check_rows import SHARES, SHORT_HEADS, SWEPT

SPEEDS = {"resnet18": 370.0, "resnet10": 730.0, "resnet10-half-512": 1200.0}  # pairs/s on two cores, measured
CIFAR = Supply("cifar10", train=50_000, test=10_000, side=32, reading=2e-4)
HOUR = 3600.0


def chosen(budget, supply=CIFAR, spent=0.0, **wishes):
    asked = []

    def rate(encoder):
        asked.append(encoder.arch)
        return SPEEDS[encoder.arch]

    return choose(supply, Wishes(budget, workers=2, **wishes), rate, lambda: spent), asked


def test_more_time_never_buys_less_and_the_largest_encoder_that_fits_is_taken():
    order = list(SPEEDS)[::-1]
    least = []
    for hours in (0.2, 0.5, 1, 2, 4, 8, 16, 30, 60, 120):
        plan, asked = chosen(hours * HOUR)
        assert plan["seconds"] <= hours * HOUR
        assert asked == list(SPEEDS)[: len(asked)]  # measured from the largest on, and no further than needed
        least.append((order.index(plan["arch"]), plan["images"], runs_of(plan)))
    assert [one[0] for one in least] == sorted(one[0] for one in least)
    assert least[0][:2] < least[-1][:2]
    assert least[-1] == (2, 50_000, 9 * 3 + len(SHARES))


def test_a_short_budget_takes_fewer_images_before_fewer_epochs():
    plan, asked = chosen(6 * 60.0)
    assert asked == list(SPEEDS)
    assert (plan["arch"], plan["epochs"], plan["rows"], plan["seeds"]) == (asked[-1], LEAST_EPOCHS, [*SHORT_HEADS], 1)
    assert LEAST_STEPS * BATCH <= plan["images"] < 50_000
    shorter, _ = chosen(125.0)
    assert shorter["images"] == LEAST_STEPS * BATCH
    assert 1 <= shorter["epochs"] < LEAST_EPOCHS


@pytest.mark.parametrize("budget", [1e-9, 1.0, 30.0])
def test_a_budget_below_one_epoch_is_refused_and_the_one_that_is_named_suffices(budget):
    with pytest.raises(BudgetTooSmall, match="is too short: 4 runs of 1 epoch on 2560 images take about") as error:
        chosen(budget)
    minutes = float(str(error.value).rpartition(" ")[2].removesuffix("m"))
    plan, _ = chosen(minutes * 60)
    assert (plan["epochs"] >= 1, plan["seconds"] <= minutes * 60) == (True, True)
    with pytest.raises(BudgetTooSmall, match="36 runs of 7 epochs"):
        chosen(budget, epochs=7, seeds=9)


def test_what_is_spent_is_no_longer_there():
    assert chosen(HOUR, spent=1200.0)[0]["seconds"] <= HOUR - 1200
    with pytest.raises(BudgetTooSmall):
        chosen(HOUR, spent=HOUR)


@given(
    budget=st.floats(60.0, 1e6),
    train=st.integers(LEAST_IMAGES, 10**6),
    test=st.integers(1, 10**6),
    side=st.integers(16, 500),
    seeds=st.none() | st.integers(1, 5),
    epochs=st.none() | st.integers(1, 500),
    short=st.booleans(),
    room=st.none() | st.integers(0, 10**6),
)
def test_every_plan_keeps_what_was_asked_for(budget, train, test, side, seeds, epochs, short, room):
    supply = Supply("photos", train, test, side, room=room)
    try:
        plan, _ = chosen(budget, supply, seeds=seeds, epochs=epochs, short=short)
    except BudgetTooSmall:
        return
    assert plan["seconds"] <= budget
    assert plan["seeds"] == (seeds or plan["seeds"])
    assert plan["epochs"] == (epochs or plan["epochs"])
    assert 1 <= plan["epochs"] <= max(MOST_EPOCHS, epochs or 0)
    assert plan["batch_size"] <= plan["images"] <= supply.usable <= train
    assert room is None or supply.usable <= max(room, LEAST_IMAGES)
    assert not short or plan["rows"] == [*SHORT_HEADS]
    assert plan["image_size"] <= side


@given(images=st.integers(LEAST_IMAGES, 10**7))
def test_batches_leave_steps_in_an_epoch(images):
    batch = batch_for(images)
    assert LEAST_BATCH <= batch <= BATCH
    assert math.log2(batch).is_integer()
    assert images // batch >= STEPS_OF_FEW


@pytest.mark.parametrize("side", [16, 32, 64, 65, 96, 500])
def test_candidates_fit_the_images_and_recipes_follow_the_plan(side):
    assert all(16 <= one.image_size <= min(side, 128) for one in encoders(side))
    supply = Supply("photos", 300, 100, side)
    plan, _ = chosen(2 * HOUR, supply)
    recipes = plan_recipes({**plan, "precision": "float32"}, "photos")
    assert len(recipes) == runs_of(plan) == len(plan["rows"]) * plan["seeds"] + len(SHARES)
    assert [one.d0 for name, one in recipes.items() if name.startswith(SWEPT)] == [16, 64, 256]
    one = recipes["none-seed0"]
    assert (one.batch_size, one.lr, one.epochs, one.precision) == (64, RATE / 4, plan["epochs"], "float32")
    assert "9 rows x 3 seeds and 3 other sizes of DirectCLR's sub-vector" in plan_sentences(plan, supply, HOUR)[0]
    assert "300 images, batch 64" in plan_sentences(plan, supply, HOUR)[0]
    assert "1234 pairs/s on all cores" in plan_sentences({**plan, "rate": 1234.5}, supply, HOUR)[0]
