"""Networks that are narrower or wider than their inputs: want of width is distinguished from both mechanisms."""

import pytest
from helpers.simulation import simulate

from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.report import report


def fates(found):
    listed = [dimension["fate"] for dimension in found["verdict"]["dimensions"]]
    return {fate: listed.count(fate) for fate in set(listed)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # No augmentation collapses anything at k = 0.1; what is missing is width.
        ({"out_dim": 10}, {"alive": 6, "structural": 4}),
        ({"out_dim": 2}, {"alive": 2, "structural": 4}),
        ({"depth": 2, "hidden_dim": 3}, {"alive": 3, "structural": 3}),
        ({"depth": 2, "hidden_dim": 9, "out_dim": 6}, {"alive": 6}),
        # Beyond the threshold the augmented modes are dead whatever the width, and never counted twice.
        ({"out_dim": 10, "aug_strength": 3.0}, {"alive": 3, "dead": 3, "structural": 4}),
        ({"out_dim": 2, "aug_strength": 3.0}, {"alive": 2, "dead": 3, "structural": 1}),
    ],
)
def test_width_is_a_cause_of_its_own(settings, expected):
    sizes = {"dim": 6, "aug_dim": 3, "aug_strength": 0.1, "init_scale": 0.5, "lr": 0.5, "steps": 800, "runs": 2}
    found = report(simulate(**(sizes | {"dynamics": ("sgd",), "batch_size": 64, "pool": 0} | settings)))
    assert fates(found) == expected
    assert found["verdict"]["mechanism"] == (
        "strong-augmentation" if "dead" in expected else "width" if "structural" in expected else "none"
    )
    assert ("for want of width" in found["verdict"]["sentence"]) == ("structural" in expected)


def test_layers_have_the_widths_that_are_asked_for():
    assert Configuration(dim=5, aug_dim=2).layer_widths == [5, 5]
    assert Configuration(dim=5, aug_dim=2, depth=3, hidden_dim=7, out_dim=2).layer_widths == [5, 7, 7, 2]
    with pytest.raises(
        ValueError, match="hidden_dim is 3, but depth 1 has no hidden layer; give depth 2 or more, or drop"
    ):
        Configuration(hidden_dim=3)


@pytest.mark.parametrize("dynamics", ["sgd", "flow", "population"])
def test_every_dynamics_takes_any_widths(dynamics):
    found = report(simulate(dim=4, aug_dim=2, depth=2, hidden_dim=3, out_dim=5, dynamics=(dynamics,)))
    assert len(found["verdict"]["dimensions"]) == 5
    assert sum(d["fate"] == "structural" for d in found["verdict"]["dimensions"]) >= 1


@pytest.mark.parametrize(
    ("settings", "count", "sentence"),
    [
        (
            {"out_dim": 2},
            0,
            "No dimension of 2 collapsed. 4 of the 6 input modes cannot be represented, for want of width: "
            "the network is only 2 wide.",
        ),
        # Three modes are dead, and three are left for an embedding of four dimensions.
        (
            {"out_dim": 4, "aug_strength": 3.0},
            1,
            "1 of 4 dimensions collapsed: 1 by strong augmentation (dead). 2 of the 6 input modes cannot be "
            "represented, for want of width: the network is only 4 wide.",
        ),
        (
            {"depth": 2, "hidden_dim": 2, "out_dim": 4},
            2,
            "2 of 4 dimensions collapsed: 2 for want of width (the network is only 2 wide). 4 of the 6 input modes "
            "cannot be represented, for want of width: the network is only 2 wide.",
        ),
    ],
)
def test_the_sentence_is_about_the_dimensions_of_the_embedding(settings, count, sentence):
    sizes = {"dim": 6, "aug_dim": 3, "aug_strength": 0.1, "init_scale": 0.5, "lr": 0.5, "steps": 800, "runs": 2}
    found = report(simulate(**(sizes | {"dynamics": ("sgd",), "batch_size": 64, "pool": 0} | settings)))["verdict"]
    assert found["sentence"] == sentence
    assert (found["collapsed"], found["embedding_dim"], len(found["dimensions"])) == (count, settings["out_dim"], 6)


def test_modes_that_live_in_some_runs_only_fill_no_more_dimensions_than_there_are():
    found = report(simulate(dim=6, aug_dim=5, out_dim=2, aug_strength=3.0, steps=1, runs=4, dynamics=("sgd",)))
    assert found["verdict"]["collapsed"] == 0
    assert found["verdict"]["sentence"].startswith("No dimension of 2 collapsed.")


@pytest.mark.parametrize(("sizes", "said"), [({"out_dim": 2}, True), ({"out_dim": 9}, False), ({}, False)])
def test_predictions_of_more_modes_than_there_is_room_for_say_so(sizes, said):
    found = report(simulate(dim=6, aug_dim=3, steps=5, dynamics=("sgd",), **sizes))
    assert ("room for every mode, which these layers have for 2 of 6" in found["prediction"]["assumes"]) == said
