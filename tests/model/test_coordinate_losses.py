"""vicreg and barlow_normalised: values, gradients, and what they see that losses on covariances do not."""

import pytest
import torch
from helpers import reference
from helpers.reference import EPS, VIEWS, normal, problems, rotation
from hypothesis import given

from dyncollapse import Objective, Pairs, barlow_normalised, vicreg
from dyncollapse.model.coordinate_losses import barlow_normalised_gradients, vicreg_gradients

LOSSES = {
    "vicreg": (lambda z, z_pos, views: vicreg(z, z_pos, views, 0.7), lambda *given: vicreg_gradients(*given, 0.7)),
    "barlow-normalised": (
        lambda z, z_pos, _views: barlow_normalised(z, z_pos),
        lambda z, z_pos, _views: barlow_normalised_gradients(z, z_pos),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@given(problem=problems())
def test_loss_equals_the_loops(name, problem):
    x, x_pos, p, views = problem
    # Correlations of coordinates that hardly vary would round on both sides.
    z, z_pos = (rows @ p.mT / p.abs().amax() if name == "barlow-normalised" else rows @ p.mT for rows in (x, x_pos))
    rows = zip(z.reshape(-1, *z.shape[-2:]), z_pos.reshape(-1, *z.shape[-2:]), strict=True)
    slow = torch.stack([reference.loss(name, a, b, views, invariance=0.7) for a, b in rows])
    size = z.shape[-1] ** 2 * (1 + float(max(z.abs().max(), z_pos.abs().max())) ** 4)
    least = min(float(side.std(-2, correction=0).min() / side.abs().max()) for side in (z, z_pos))
    tolerance = 100 * EPS * (z.shape[-1] ** 2 / max(least, EPS) if name == "barlow-normalised" else size)
    torch.testing.assert_close(LOSSES[name][0](z, z_pos, views).flatten(), slow, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
@given(problem=problems())
def test_gradients_are_autograds(name, problem):
    x, x_pos, p, views = problem
    leaves = [(rows @ p.mT).requires_grad_() for rows in (x, x_pos)]
    value, gradients = LOSSES[name]
    expected = torch.autograd.grad(value(*leaves, views).sum(), leaves)
    got = gradients(*(z.detach() for z in leaves), views)
    for one, other, z in zip(got, expected, leaves, strict=True):
        spread = float(z.detach().std(-2, correction=0).min())
        size = 1 + float(z.detach().abs().max()) ** 3
        # vicreg divides by deviations of at least 1e-2, the other by the deviations themselves.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13 * (100 * size if name == "vicreg" else size / spread))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_see_single_coordinates(name, views, generator):
    z, z_pos = normal(generator, 9, 4) * torch.tensor([0.3, 0.6, 0.9, 2.0]).double(), normal(generator, 9, 4)
    loss, q = LOSSES[name][0], rotation(generator, 4)
    value = loss(z, z_pos, views)
    assert abs(float(loss(z @ q.T, z_pos @ q.T, views) - value)) > 1e-3
    order, signs, shift = torch.randperm(4, generator=generator), torch.tensor([1.0, -1.0, -1.0, 1.0]), 3.0
    for one, other in ((z[:, order], z_pos[:, order]), (z * signs, z_pos * signs), (z + shift, z_pos + shift)):
        torch.testing.assert_close(loss(one, other, views), value, rtol=1e-12, atol=1e-12)


def test_normalised_barlow_ignores_the_scale_of_every_coordinate(generator):
    z, z_pos = normal(generator, 9, 4), normal(generator, 9, 4)
    stretch = 10 ** torch.linspace(-120, 120, 4, dtype=torch.float64)
    value, scaled = barlow_normalised(z, z_pos), (z * stretch, z_pos * stretch.flip(0))
    torch.testing.assert_close(barlow_normalised(*scaled), value, rtol=1e-12, atol=0)
    (g, _), (far, _) = barlow_normalised_gradients(z, z_pos), barlow_normalised_gradients(*scaled)
    torch.testing.assert_close(far * stretch, g, rtol=1e-11, atol=1e-15)


def test_a_constant_coordinate_is_uncorrelated(generator):
    z, z_pos = normal(generator, 9, 3), normal(generator, 9, 3)
    z[:, 1] = 0
    rest = barlow_normalised(z[:, [0, 2]], z_pos[:, [0, 2]])
    missing = 0.005 * sum(torch.corrcoef(torch.stack([z[:, j], z_pos[:, 1]]))[0, 1] ** 2 for j in (0, 2))
    torch.testing.assert_close(barlow_normalised(z, z_pos), rest + 1 + missing, rtol=1e-12, atol=0)
    assert all(torch.isfinite(g).all() for g in barlow_normalised_gradients(z, z_pos))


@pytest.mark.parametrize("name", LOSSES)
def test_vanishing_embeddings_do_not_move(name):
    zero = torch.zeros(5, 3, dtype=torch.float64)
    value, gradients = LOSSES[name]
    assert float(value(zero, zero, "two-sided")) == pytest.approx({"vicreg": 2 * 0.99}.get(name, 3.0), abs=10 * EPS)
    assert all(torch.equal(g, zero) for g in gradients(zero, zero, "two-sided"))


def test_the_hinge_holds_deviations_up_and_not_down(generator):
    z = torch.linalg.qr(normal(generator, 9, 3) - normal(generator, 9, 3))[0]
    z = torch.linalg.qr(z - z.mean(0))[0] * 8**0.5  # uncorrelated, and deviations of 1 over n - 1 = 8
    for scale, slope in ((0.5, -1), (2.0, 0)):
        g, g_pos = vicreg_gradients(scale * z, scale * z)
        torch.testing.assert_close(g, g_pos)
        direction = torch.sign((g * z).sum(0)) * ((g * z).sum(0).abs() > 1e-12)
        assert direction.tolist() == [slope] * 3
    assert float(vicreg(2 * z, 2 * z)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("invariance", [0.0, 1.0, 3.0])
def test_one_sided_views_hold_the_anchors_in_place_of_both_views(invariance, generator):
    z, z_pos = normal(generator, 9, 4), normal(generator, 9, 4)
    pull = (z - z_pos).square().mean()
    expected = vicreg(z, z, "two-sided", invariance) + invariance * pull
    torch.testing.assert_close(vicreg(z, z_pos, "one-sided", invariance), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_they_have_no_force(name, generator):
    p, objective = normal(generator, 3, 4), Objective(name)
    pairs = Pairs(normal(generator, 6, 4), normal(generator, 6, 4), "two-sided")
    assert objective.closed_form
    for use in (lambda: objective.force(p, pairs), lambda: objective.curvature((p,), pairs)):
        with pytest.raises(ValueError, match=f"no force is known for {name}, which sees single coordinates of the emb"):
            use()
    # -P X P^T would be symmetric, as it is for a loss that is blind to rotations.
    for other in (name, "vcreg"):
        moment = Objective(other).gradient((p,), pairs)[0] @ p.T
        assert (float((moment - moment.T).abs().max()) > 1e-3) == (other == name)
