import pytest
import torch
from helpers.verdicts import dimensions

from dyncollapse import judge
from dyncollapse.simulation.verdict import moment


def test_sentence_counts_each_mechanism():
    assert judge(dimensions([1.0, 0.5], [0.0, 0.0])).sentence == "No dimension of 2 collapsed."
    sentence = judge(dimensions([1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 2.0, 2.0])).sentence
    assert sentence.startswith("3 of 4 dimensions collapsed: 2 by strong augmentation")
    assert " and 1 by implicit regularization" in sentence


@pytest.mark.parametrize(
    ("time", "per_step", "words"),
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
def test_moment_has_three_digits_and_the_step(time, per_step, words):
    assert moment(time, per_step) == words


INF = float("inf")


@pytest.mark.parametrize(
    ("escape", "per_step", "words"),
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
def test_sentence_says_when_waiting_dimensions_escape(escape, per_step, words):
    k = len(escape)
    found = dimensions([1.0] + [0.0] * k, [0.5] * (k + 1))
    verdict = judge(found, rest=torch.ones(k + 1), escape=torch.tensor([7.0, *escape]), time_per_step=per_step)
    assert verdict.escapes == [None, *torch.tensor(escape).tolist()]
    assert verdict.sentence == (
        f"{k} of {k + 1} dimensions collapsed: {k} by implicit regularization (data beats augmentation there: {words}."
    )


@pytest.mark.parametrize(
    ("ratios", "rest", "words"),
    [
        ([0.0, 2.0, 2.0], [1.0, 0.0, 0.0], "2 by strong augmentation (dead)."),
        ([0.0, 0.9, 0.9], [1.0, 1e-3, 1e-3], "2 by strong augmentation (too low at rest)."),
        ([0.0, 0.9, 2.0], [1.0, 1e-3, 0.0], "2 by strong augmentation (1 dead, 1 too low at rest)."),
    ],
)
def test_sentence_tells_the_dead_from_those_at_rest(ratios, rest, words):
    found = dimensions([1.0, 0.0, 0.0], ratios)
    for per_step in (None, 0.1):
        verdict = judge(found, rest=torch.tensor(rest), escape=torch.full((3,), 9.0), time_per_step=per_step)
        assert verdict.sentence == f"2 of 3 dimensions collapsed: {words}"
        assert verdict.escapes == [None] * 3


def test_sentence_joins_all_three_fates():
    found = dimensions([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.9, 0.5])
    rest, escape = torch.tensor([1.0, 0.0, 1e-3, 0.5]), torch.tensor([9.0] * 4)
    assert judge(found, rest=rest, escape=escape, time_per_step=0.1).sentence == (
        "3 of 4 dimensions collapsed: 2 by strong augmentation (1 dead, 1 too low at rest) and "
        "1 by implicit regularization (data beats augmentation there: waiting, to escape by t = 9 (step 90) "
        "at the present force)."
    )
