"""Remedies of measured embeddings: only for what was measured, each followed by what it promises when it is applied."""

import re

import numpy as np
import pytest
import torch
from helpers.planted import CASES, LARGE, report_on

from dyncollapse import Monitor, diagnose
from dyncollapse.bridge.evaluation.diagnose import DiagnosedSpaces
from dyncollapse.diagnostics.remedies import MOST_LINES, WIDTH, remedy_lines
from dyncollapse.diagnostics.verdict import Fate

LAYER = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-3], dtype=torch.float64))


def one_sided(strength: float, n: int = 4000, generator: torch.Generator | None = None):
    """Embeddings of clean anchors, and of positives whose last input is augmented with this variance."""
    generator = generator or torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    x_pos = x + noise * torch.tensor([0.1, 0.1, 0.1, strength]).double().sqrt()
    return x @ LAYER, x_pos @ LAYER


def text(report) -> str:
    return " ".join(f"{one.action} {one.effect}" for one in report.remedies)


def number(found: str, before: str) -> float:
    match = re.search(before + r" ([\d.]+\d|\d)", found)
    assert match, found
    return float(match[1])


def test_at_the_stated_share_rho_is_one():
    report = diagnose(*one_sided(strength=6.0), views="one-sided")
    assert report.verdict.fates.count(Fate.DEAD) == 1
    share = number(text(report), "in the only direction at")
    assert share == pytest.approx(1 / 3, rel=0.1)  # rho is a / 2
    for factor, fate in ((0.75, Fate.WAITING), (1.33, Fate.DEAD)):
        after = diagnose(*one_sided(strength=6.0 * share * factor, n=40_000), views="one-sided")
        assert after.verdict.fates[-1] is fate


def test_softmax_weights_give_no_share():
    report = diagnose(*one_sided(strength=6.0, n=500), views="one-sided", loss="infonce")
    assert "%" not in text(report)
    assert "of the augmentation's variance" not in text(report)


def test_the_stated_number_of_samples_decides_an_open_cause():
    report = diagnose(*one_sided(strength=2.3, n=300), views="one-sided")
    assert report.verdict.fates[-1] is Fate.UNEXPLAINED
    rows = int(number(text(report), "about"))
    again = diagnose(*one_sided(strength=2.3, n=4 * rows), views="one-sided")
    assert again.verdict.fates[-1] is Fate.DEAD


def test_without_views_the_only_suggestion_is_to_give_one():
    z, z_pos = one_sided(strength=6.0)
    (only,) = diagnose(z).remedies
    assert (only.kind, "positives" in only.action) == ("check", True)
    (same,) = diagnose(z, z).remedies
    assert "does not differ" in same.effect
    monitor = Monitor()
    monitor.update(z, z_pos)
    assert ["compare" in one.action for one in monitor.compute(compare=False).remedies] == [True]


def test_a_healthy_embedding_has_no_remedy():
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert diagnose(z).remedies == ()


@pytest.mark.parametrize("room", [2, 3])
def test_width_names_the_units_and_the_outputs(room, generator):
    r = torch.randn(2000, room, generator=generator, dtype=torch.float64)
    z = r @ torch.randn(room, 5, generator=generator, dtype=torch.float64)
    found = text(diagnose(z, input_dim=room))
    assert f"from {room} to 5 units, or keep {room} outputs" in found
    wider = torch.randn(2000, 5, generator=generator, dtype=torch.float64)
    assert diagnose(wider @ torch.randn(5, 5, generator=generator, dtype=torch.float64), input_dim=5).remedies == ()


def test_rounded_embeddings_are_asked_for_digits():
    z, _ = one_sided(strength=1.0)
    rounded = (z + 3).to(torch.bfloat16)
    report = diagnose(rounded)
    assert Fate.UNRESOLVED in report.verdict.fates
    assert "before any rounding to bfloat16" in text(report)
    assert "inputs of the last linear layer" in text(report)


def test_too_few_samples_are_asked_for_more():
    report = diagnose(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert "ten times 8 or more" in text(report)


def test_negatively_correlated_views_are_to_be_drawn_alike(generator):
    x = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    noise[:, :3] *= 0.1
    report = diagnose((0.5 * x + noise) @ LAYER, (0.5 * x - noise) @ LAYER)
    assert report.verdict.fates[-1] is Fate.DEAD
    assert "independently" in text(report)


@pytest.mark.parametrize("name", CASES)
def test_every_remedy_has_its_premise(name):
    report = report_on(name, *LARGE)
    premises = {
        "Train longer": Fate.WAITING,
        "Widen": Fate.STRUCTURAL,
        "Draw both views": Fate.DEAD,
        "Weaken": (Fate.DEAD, Fate.SUPPRESSED),
        "Give another view": Fate.UNEXPLAINED,
        "Give the inputs": Fate.UNRESOLVED,
        "distinct": Fate.UNSEEN,
    }
    for one in report.remedies:
        for words, fates in premises.items():
            if words in one.action:
                assert set(report.verdict.fates) & set(fates if isinstance(fates, tuple) else (fates,))
    if any(fate.collapsed for fate in report.verdict.fates):
        assert report.remedies
    lines = remedy_lines(report.remedies)
    assert all(len(line) <= WIDTH for line in lines)
    assert len(lines) <= MOST_LINES + 4  # and the first check, and how many more there are


def test_spaces_are_compared(generator):
    x = torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    noise = [torch.randn(2000, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    views = [torch.cat([(x + 0.1 * n)[:, :3], n[:, 3:]], 1) for n in noise]
    representation = diagnose(*views, space="representation")
    embedding = diagnose(*(view @ LAYER for view in views), inputs=views[0], input_positives=views[1])
    both = DiagnosedSpaces({"representation": representation, "embedding": embedding}, layers=[]).as_values()
    actions = [one["try"] for one in both["remedies"]]
    assert actions[0] == "Use the representation, not the embedding."
    assert any(action.startswith("embedding: Weaken") for action in actions)
    lost = diagnose(*(view @ LAYER for view in views), space="representation")
    alone = DiagnosedSpaces({"representation": lost}, layers=[]).remedies
    assert "no projector" in alone[0].action


def test_the_quoted_results_are_those_of_the_page():
    from helpers.pages import ROOT

    results = (ROOT / "docs" / "results.md").read_text()
    assert "| nonlinear, 2 layers | none | temperature 0.5 | +15.0 | +3.7 | +2.4 to +4.9 |" in results
    assert "| nonlinear, 2 layers | none | - | +15.0 | -1.6 | -2.9 to -0.4 |" in results


def test_remedies_of_numpy_and_lists_are_plain_text():
    report = diagnose(np.random.default_rng(0).normal(size=(200, 3)) * np.array([1, 1, 1e-6]))
    assert all(type(value) is str for one in report.as_values()["remedies"] for value in one.values())
