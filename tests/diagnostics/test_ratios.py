"""One-sided verdicts keep their level for any number of dimensions, samples and tails, and find what is clear."""

import pytest
import torch
from helpers.reference import normal, seeded
from one_sided_errors import TAILS, draw, fates, power, wrong, wrong_beside
from scipy.stats import binom, norm

from dyncollapse import diagnose
from dyncollapse.diagnostics.ratios import decided
from dyncollapse.diagnostics.shared_signal import LEVEL

# At the bound of 5 % per draw, no more of 10 draws than this, but for a chance of 1e-4.
DRAWS = 10
MOST = binom.isf(1e-4, DRAWS, 0.05) / DRAWS


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize(("samples", "q"), [(150, 1), (150, 40), (1000, 16)])
def test_what_lies_at_one_stays_open(tails, samples, q):
    assert wrong(q, samples, tails, DRAWS) <= MOST
    assert q == 1 or wrong_beside(q, samples, tails, DRAWS) <= MOST


@pytest.mark.parametrize("ratio", [3.0, 1 / 3])
@pytest.mark.parametrize(("tails", "least"), [("normal", 0.99), ("student", 0.9), ("one scale per sample", 0.3)])
def test_what_is_clear_is_decided(tails, least, ratio):
    assert power(16, 300, tails, 3, ratio) >= least
    assert power(40, 1000, tails, 1, ratio) >= max(least, 0.85)


def test_more_directions_than_samples_are_not_told_the_wrong_way():
    # Eigenvectors of so many directions lie along single samples, of which half are data and half are augmentation.
    for ratio, wrong_way in ((3.0, "waiting"), (1 / 3, "dead")):
        assert wrong_way not in fates(0, 150, [ratio] * 300, "normal")


@pytest.mark.parametrize("count", [1, 5, 200])
def test_hommel_decides_nothing_of_noise_and_all_that_is_far(count):
    g = seeded(count)
    noise = [bool(decided(normal(g, count)).any()) for _ in range(300)]
    assert sum(noise) <= binom.isf(1e-4, 300, LEVEL)
    assert decided(torch.full((count,), 10.0, dtype=torch.float64)).all()
    mixed = torch.cat([torch.full((count,), -10.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)])
    assert decided(mixed).tolist() == [True] * count + [False] * 3


def test_hommel_is_between_bonferroni_and_no_correction():
    g = seeded(7)
    for _ in range(50):
        z = 3.5 * normal(g, 12)
        p = torch.as_tensor(2 * norm.sf(z.abs().numpy()))
        found = decided(z)
        assert (found | (p > LEVEL / 12)).all()  # whatever Bonferroni decides
        assert (~found | (p <= LEVEL)).all()


def test_hommel_equals_the_closure_of_simes():
    # By its definition: a hypothesis falls where every set that holds it falls by Simes' test.
    g = seeded(3)
    for _ in range(30):
        z = 4 * normal(g, 6)
        p = 2 * norm.sf(z.abs().numpy())
        simes = {}
        for members in range(1, 64):
            held = sorted(p[k] for k in range(6) if members >> k & 1)
            simes[members] = any(value <= LEVEL * (j + 1) / len(held) for j, value in enumerate(held))
        closed = [all(fell for members, fell in simes.items() if members >> k & 1) for k in range(6)]
        assert decided(z).tolist() == closed


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("unit", [1e-100, 1e-78, 1e78, 1e100])
def test_a_verdict_does_not_depend_on_the_unit(unit, views):
    z, positives = draw(0, 400, [2.0, 2.0, 0.125, 0.125], "normal")
    expected, found = (diagnose(one * z, one * positives, views=views) for one in (1.0, unit))
    assert found.verdict.fates == expected.verdict.fates
    assert found.warnings == expected.warnings
    torch.testing.assert_close(found.ratio, expected.ratio, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.ratio_error, expected.ratio_error, rtol=1e-6, atol=0)


@pytest.mark.parametrize("unit", [1e-100, 1e100])
def test_more_directions_than_a_joint_test_takes_do_not_depend_on_the_unit(unit):
    g = seeded(0)
    signal = normal(g, 60, 50) * torch.tensor([3.0] * 40 + [0.0] * 10)
    gain = torch.tensor([1.0] * 4 + [2e-3] * 46)
    z, positives = ((signal + normal(g, 60, 50)) * gain for _ in range(2))
    expected, found = (diagnose(one * z, one * positives) for one in (1.0, unit))
    assert "waiting" in expected.verdict.fates
    assert found.verdict.fates == expected.verdict.fates
    assert found.verdict.unseen_signal == pytest.approx(expected.verdict.unseen_signal, rel=1e-6)
