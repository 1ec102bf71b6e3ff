import pytest
import torch
from helpers.reference import EPS, VIEWS, normal, random_covariance

from dyncollapse import GaussianTask, PairMoments


def unlike_views(generator, n=500, d=4):
    """Two views with a common offset, of which one has another mean."""
    x = normal(generator, n, d) + 3
    return x, x / 2 + normal(generator, n, d) + 1


def all_of(moments):
    return moments.view_cov, moments.difference_cov, moments.shared


@pytest.mark.parametrize("views", VIEWS)
def test_moments_are_those_of_the_samples(views, generator):
    x, y = unlike_views(generator)
    moments = PairMoments.from_pairs(x, y, views)
    joint = torch.cov(torch.cat([x, y], 1).T, correction=0)
    difference = (x - y).T @ (x - y) / len(x)
    torch.testing.assert_close(moments.difference_cov, difference)
    if views == "one-sided":
        torch.testing.assert_close(moments.view_cov, joint[:4, :4])
        torch.testing.assert_close(moments.shared, (joint[:4, 4:] + joint[4:, :4]) / 2)
    else:
        # As a loss in which either view is the anchor sees them: all points about their common mean.
        torch.testing.assert_close(moments.view_cov, torch.cov(torch.cat([x, y]).T, correction=0))
        torch.testing.assert_close(moments.difference_cov, 2 * (moments.view_cov - moments.shared))


@pytest.mark.parametrize("views", VIEWS)
def test_moments_do_not_depend_on_how_the_samples_arrive(views, generator):
    x, y = unlike_views(generator)
    whole = PairMoments.from_pairs(x, y, views)
    cuts = [slice(0, 3), slice(3, 3), slice(3, 400), slice(400, None)]
    streamed = PairMoments.from_batches(((x[cut], y[cut]) for cut in cuts), views)
    merged = PairMoments.from_pairs(x[:120], y[:120], views).merged(PairMoments.from_pairs(x[120:], y[120:], views))
    for other in (streamed, merged):
        assert other.samples == 500
        for a, b in zip(all_of(whole), all_of(other), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1000 * EPS * float(a.abs().max()))


def test_a_large_common_offset_costs_no_digits(generator):
    x, y = unlike_views(generator)
    near, far = (PairMoments.from_pairs(x + shift, y + shift) for shift in (0.0, 1e6))
    torch.testing.assert_close(near.view_cov, far.view_cov, rtol=1e-8, atol=0)


@pytest.mark.parametrize("views", VIEWS)
def test_a_gaussian_task_has_the_moments_it_is_drawn_from(views, generator):
    task = GaussianTask(random_covariance(generator, 3), random_covariance(generator, 3), views)
    s_e, a_e = task.seen
    positive = None if views == "two-sided" else s_e + a_e
    moments = PairMoments.from_covariances(s_e, task.shared, views, positive)
    torch.testing.assert_close(moments.difference_cov, a_e)
    for own, given in zip(moments.equivalent, (task.data_cov, task.aug_cov), strict=True):
        torch.testing.assert_close(own, given)
    drawn = moments.gaussian_task().sample(200_000, generator)
    again = PairMoments.from_pairs(drawn.anchor, drawn.positive, views)
    for own, given in zip(all_of(again), all_of(moments), strict=True):
        # A covariance of n samples has a standard error of at most sqrt(2 / n) times the variances.
        assert (own - given).abs().max() < 5 * (2 / 200_000) ** 0.5 * float(moments.difference_cov.diagonal().max())


def test_negatively_correlated_noise_has_its_moments(generator):
    data, aug = torch.eye(2, dtype=torch.float64), 2 * torch.eye(2, dtype=torch.float64)
    noise = torch.diag(torch.tensor([-2.0, 1.0], dtype=torch.float64))
    task = GaussianTask(data, aug, "two-sided", noise)
    assert task.shared.diagonal().tolist() == [-1, 2]
    assert [m.diagonal().tolist() for m in task.seen] == [[3, 3], [8, 2]]
    pairs = task.sample(100_000, generator)
    moments = PairMoments.from_pairs(pairs.anchor, pairs.positive)
    assert (moments.shared - task.shared).abs().max() < 5 * (2 / 1e5) ** 0.5 * 3
    assert task.to(torch.float32).seen[1].dtype == torch.float32


def test_projected_moments_are_those_of_the_coordinates(generator):
    x, y = unlike_views(generator)
    frame = normal(generator, 4, 2)
    projected = PairMoments.from_pairs(x, y).within(frame)
    for a, b in zip(all_of(projected), all_of(PairMoments.from_pairs(x @ frame, y @ frame)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairMoments.from_pairs(torch.zeros(3, 2), torch.zeros(3, 1)), "same samples"),
        (lambda: PairMoments.from_pairs(torch.zeros(1, 2), torch.zeros(1, 2)), "give at least 2"),
        (lambda: PairMoments.from_pairs(torch.tensor([[0.0], [torch.nan]]), torch.zeros(2, 1)), "NaN or infinity"),
        (lambda: PairMoments.from_batches([]), "0 pairs"),
        (lambda: PairMoments.from_covariances(torch.eye(2), 2 * torch.eye(2)), "difference_cov has the eigenvalue -2"),
        (lambda: PairMoments.from_covariances(torch.eye(2), -2 * torch.eye(2)), "view_cov \\+ shared has the eigenval"),
        (lambda: PairMoments.from_covariances(-torch.eye(2), torch.eye(2)), "view_cov has the eigenvalue -1"),
        (lambda: PairMoments.from_covariances(torch.eye(2), torch.eye(3)), "cross_cov \\(3, 3\\)"),
        (lambda: PairMoments.from_covariances(torch.eye(2), torch.eye(2), "one-sided"), "positive_cov is not given"),
        (lambda: PairMoments.from_images(torch.zeros(3, 2), lambda x, _: x, torch.Generator(), draws=0), "draws is 0"),
        (lambda: GaussianTask(torch.eye(1), torch.eye(1), "one-sided", torch.eye(1)), "only one is noisy"),
        (lambda: GaussianTask(torch.eye(1), torch.eye(1), "two-sided", 2 * torch.eye(1)), "A - C .*eigenvalue -1"),
    ],
)
def test_impossible_moments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_positives_that_no_gaussian_task_draws_are_refused(generator):
    x = normal(generator, 50, 2)
    with pytest.raises(ValueError, match="independent noise"):
        PairMoments.from_pairs(x, 2 * x, "one-sided").gaussian_task()
    with pytest.raises(ValueError, match="merge moments that were measured"):
        PairMoments.from_pairs(x, x).merged(PairMoments.from_covariances(torch.eye(2), torch.eye(2)))


def test_opposite_views_are_no_round_off_below_zero(generator):
    x = torch.randn(100, 5, generator=generator)
    moments = PairMoments.from_pairs(x, -x)
    torch.testing.assert_close(moments.shared, -moments.view_cov)


@pytest.mark.parametrize("seed", range(10))
def test_flat_images_have_moments(seed):
    # All entries of such a covariance are nearly equal: its eigenvalues are off by the round-off of d entries.
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(40, 1, generator=generator) * torch.ones(40, 300)
    moments = PairMoments.from_pairs(x, x * torch.rand(40, 1, generator=generator))
    assert moments.dim == 300
