"""Shares of the augmentation below which dimensions grow: by Sylvester's law, by modes, and by a flow."""

import pytest
import torch
from torch.testing import assert_close

from dyncollapse import GaussianTask, collapse_threshold, mode_forces, rest_modes
from dyncollapse.theory.limits import population_limit
from dyncollapse.theory.weakening import growing_shares, weakened, weakened_forces

LOSSES = [
    ("infonce", None, None, "one-sided"),
    ("vcreg", None, 2.0, "one-sided"),
    ("vcreg", None, 3.0, "two-sided"),
]

NEVER = [("dot", 0.5, None, "two-sided"), ("spectral", None, None, "one-sided"), ("infonce", None, None, "two-sided")]


def turned(d: int, generator: torch.Generator, views: str) -> GaussianTask:
    """Covariances that do not commute, whose augmentation exceeds the data along most directions."""
    first, second = (torch.randn(d, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return GaussianTask(first @ first.T / d + 0.1 * torch.eye(d).double(), 4 * second @ second.T / d, views)


@pytest.mark.parametrize(("loss", "temperature", "invariance", "views"), LOSSES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_as_many_directions_grow_as_shares_lie_above(loss, temperature, invariance, views, weight_decay, generator):
    task = turned(6, generator, views)
    shares = growing_shares(task, loss, temperature, invariance, weight_decay)
    assert len(shares) == 6
    assert (shares <= 1).any()
    for share in [s * factor for s in shares[shares.isfinite()].tolist() for factor in (0.999, 1.001)]:
        growth = population_limit(weakened(task, share), loss, temperature, invariance).growth
        values = torch.linalg.eigvalsh(growth - weight_decay * torch.eye(6, dtype=torch.float64))
        assert int((values > 0).sum()) == int((shares > share).sum())


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_modes_at_rest_appear_exactly_below_a_share(factor, generator):
    task = turned(5, generator, "one-sided")
    share = float(growing_shares(task)[0])
    alive = rest_modes(weakened(task, share * factor)).variance > 0
    assert int(alive.sum()) == (5 if factor < 1 else 4)


@pytest.mark.parametrize(("loss", "temperature", "invariance", "views"), LOSSES)
def test_share_times_strength_is_the_known_threshold(loss, temperature, invariance, views):
    share = growing_shares(GaussianTask.block(2, 1, 7.0, 0.5, views), loss, temperature, invariance)
    assert float(share[0]) * 7 == pytest.approx(collapse_threshold(0.5, views, loss, invariance=invariance))
    assert share[1] == torch.inf


@pytest.mark.parametrize(("loss", "temperature", "invariance", "views"), NEVER)
def test_where_noise_kills_nothing_no_share_is_finite(loss, temperature, invariance, views, generator):
    assert growing_shares(turned(4, generator, views), loss, temperature, invariance).isinf().all()


def test_inputs_without_data_are_in_no_share():
    task = GaussianTask(torch.diag(torch.tensor([1.0, 0.0])).double(), torch.eye(2).double())
    assert_close(growing_shares(task), torch.tensor([2.0]).double())


def test_inputs_without_data_enter_by_the_schur_complement(generator):
    data = torch.diag(torch.tensor([1.0, 0.5, 0.0])).double()
    mixed = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    task = GaussianTask(data, 9 * mixed @ mixed.T)
    for share in [s * f for s in growing_shares(task).tolist() for f in (0.999, 1.001)]:
        growth = population_limit(weakened(task, share)).growth
        assert int((torch.linalg.eigvalsh(growth) > 1e-9).sum()) == int((growing_shares(task) > share).sum())


def test_weight_decay_beyond_the_data_leaves_nothing_to_weaken():
    assert len(growing_shares(GaussianTask.block(2, 2, 1.0), weight_decay=1.5)) == 0


def test_correlated_noises_scale_together():
    task = GaussianTask.block(2, 1, 4.0, 0.5, "two-sided")
    task = GaussianTask(task.data_cov, task.aug_cov, "two-sided", -0.5 * task.aug_cov)
    assert_close(growing_shares(task), torch.tensor([0.25, torch.inf]).double())  # S + s C = 0 at s = 0.5 / 2


@pytest.mark.parametrize(("loss", "temperature", "invariance", "views"), [*LOSSES, *NEVER])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_weakened_forces_are_the_forces_of_the_weakened_task(loss, temperature, invariance, views, share):
    task = GaussianTask(
        torch.diag(torch.tensor([1.0, 2.0])).double(), torch.diag(torch.tensor([0.5, 3.0])).double(), views
    )
    found = weakened_forces(task, loss, temperature, invariance)(share)
    wanted = mode_forces(weakened(task, share), loss, temperature, invariance)
    for name in ("growth", "view_var", "ratio", "repulsion"):
        if getattr(wanted, name) is not None:
            assert_close(getattr(found, name), getattr(wanted, name))
