"""Directions that two views share: planted moments, sampling errors, and what cannot be measured."""

import pytest
import torch

from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs

EMPTIED, FLIPPED = 5, 3


def pairs(generator, samples=4000, dim=12, noise=0.3):
    """Views of Gaussian images in which a mask has replaced the last pixels by noise of its own, view by view."""
    image = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    views = [image + noise * torch.randn(image.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    for view in views:
        view[:, dim - EMPTIED :] = torch.randn(samples, EMPTIED, generator=generator, dtype=torch.float64)
    return views


def found(first, second, views="two-sided", **settings):
    return find_directions(measure_pairs([(first, second)], views, len(first)), 10**5, **settings)


@pytest.mark.seeds(3)
def test_a_mask_empties_as_many_directions_as_it_has_pixels(generator):
    directions = found(*pairs(generator))
    assert int((~directions.shared).sum()) == EMPTIED
    assert not directions.opposed.any()
    gamma = 1 / (1 + 0.3**2)
    assert (directions.gamma[:-EMPTIED] - gamma).abs().max() < 5 * float(directions.error[0])
    assert directions.gamma[-EMPTIED:].abs().max() < directions.explained
    lost = directions.patterns[:, ~directions.shared]
    assert lost[-EMPTIED:].square().sum(0).min() > 0.98  # the patterns of the emptied pixels


def test_views_of_opposite_signs_are_opposed(generator):
    first, second = pairs(generator)
    second[:, :FLIPPED] *= -1
    directions = found(first, second)
    assert int(directions.opposed.sum()) == FLIPPED
    assert (directions.gamma[-FLIPPED:] < -0.8).all()
    assert directions.rho[-FLIPPED:].min() > 1.8


def test_views_that_are_drawn_alike_oppose_nothing(generator):
    first, second = pairs(generator)
    second[:, :FLIPPED] *= -1
    assert not found(first, second, alike=True).opposed.any()


def test_the_frame_is_orthonormal_and_the_directions_diagonalise_both_moments(generator):
    measured = measure_pairs([tuple(pairs(generator))], "two-sided", 4000)
    directions = find_directions(measured, 7)
    u, moments = directions.vectors, measured.moments
    identity = torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(directions.frame.T @ directions.frame, identity)
    torch.testing.assert_close(u.T @ moments.view_cov @ u, identity)
    torch.testing.assert_close(u.T @ moments.difference_cov @ u, 2 * torch.diag(directions.rho))
    assert directions.share == pytest.approx(float(torch.linalg.eigvalsh(moments.view_cov)[-7:].sum() / 12), rel=0.1)


@pytest.mark.parametrize("views", ["two-sided", "one-sided"])
def test_errors_are_the_spread_over_samples(views, generator):
    ratios, errors = [], []
    for _ in range(60):
        image = torch.randn(500, 1, generator=generator, dtype=torch.float64).pow(3)  # heavy tails
        noisy = [image + torch.randn(500, 1, generator=generator, dtype=torch.float64) for _ in range(2)]
        directions = found(noisy[0] if views == "two-sided" else image, noisy[1], views)
        ratios.append(directions.rho)
        errors.append(directions.error)
    assert float(torch.stack(errors).mean() / torch.stack(ratios).std()) == pytest.approx(1, abs=0.35)


def test_one_sided_augmentation_beyond_the_data_is_opposed(generator):
    image = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    noise = torch.tensor([0.5, 3.0]).sqrt() * torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    directions = found(image, image + noise, "one-sided")
    assert directions.rho.tolist() == pytest.approx([0.25, 1.5], rel=0.1)
    assert directions.shared.tolist() == [True, False]
    assert directions.opposed.tolist() == [False, True]


def test_few_images_show_a_quarter_as_many_directions(generator):
    assert found(*pairs(generator, samples=20)).count == 5


def test_the_pixel_mean_is_subtracted(generator):
    first, second = pairs(generator)
    shift = 100 * torch.rand(12, generator=generator, dtype=torch.float64)
    shifted = found(first + shift, second + shift)
    torch.testing.assert_close(shifted.rho, found(first, second).rho, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.rand(7, 3), torch.rand(7, 3), "too few"),
        (torch.ones(20, 3), torch.ones(20, 3), "without any variance"),
        (torch.arange(60.0).reshape(20, 3), torch.arange(60.0).reshape(20, 3), "changes none"),
    ],
)
def test_what_cannot_be_measured_is_refused(first, second, words):
    with pytest.raises(ValueError, match=words):
        measure_pairs([(first, second)], "two-sided", len(first))
