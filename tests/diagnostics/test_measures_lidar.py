import math

import numpy as np
import pytest
import torch
from helpers.measures import SEEDS, close, slow_effective_rank, tensor
from helpers.reference import normal, rotation, seeded

from dyncollapse.diagnostics.lidar import lidar, lidar_from_covariances
from dyncollapse.diagnostics.measures import rankme


def slow_lidar(views, delta):
    v, n, d = views.shape
    centres = [sum(views[j, i] for j in range(v)) / v for i in range(n)]
    mean = sum(centres) / n
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for i in range(n):
        between += np.outer(centres[i] - mean, centres[i] - mean) / n
        for j in range(v):
            within += np.outer(views[j, i] - centres[i], views[j, i] - centres[i]) / (n * v)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return slow_effective_rank(np.linalg.eigvalsh(root @ between @ root).clip(0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("v", "n", "d"), [(2, 12, 3), (5, 4, 6), (3, 30, 4)])
def test_lidar_is_the_effective_rank_of_the_lda_matrix(v, n, d, seed):
    views = normal(seeded(seed), 1, n, d) + 0.5 * normal(seeded(seed + 10), v, n, d)
    close(lidar(views), slow_lidar(views.numpy(), 1e-4), rtol=1e-9)
    close(lidar(views, delta=0.3), slow_lidar(views.numpy(), 0.3), rtol=1e-9)


# --- LiDAR


@pytest.mark.parametrize("d", [1, 4, 9])
def test_isotropic_covariances_have_full_lidar(d):
    identity = torch.eye(d, dtype=torch.float64)
    for delta in (0, 1e-4, 10):
        close(lidar_from_covariances(2 * identity, 0.3 * identity, delta), d)


@pytest.mark.parametrize("seed", SEEDS)
def test_lidar_of_commuting_covariances_is_that_of_the_ratios(seed):
    q, between, within = rotation(seeded(seed), 6), tensor(9, 4, 1, 0.1, 0, 0), tensor(1, 2, 3, 4, 5, 6)
    got = lidar_from_covariances(q @ between.diag() @ q.T, q @ within.diag() @ q.T, delta=0.5)
    close(got, slow_effective_rank((between / (within + 0.5)).tolist()), rtol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_linear_map_leaves_lidar_alone_without_delta(seed):
    generator = seeded(seed)
    views = normal(generator, 1, 20, 4) + 0.3 * normal(generator, 3, 20, 4)
    mixed = views @ normal(generator, 4, 4)
    close(lidar(mixed, delta=0), lidar(views, delta=0), rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_position_and_rotation_leave_lidar_alone(seed):
    generator = seeded(seed)
    views = normal(generator, 1, 20, 5) + 0.3 * normal(generator, 4, 20, 5)
    samples, q = torch.randperm(20, generator=generator), rotation(generator, 5)
    value = lidar(views)
    for other in (views[[2, 0, 3, 1]], views[:, samples], views + 10, views @ q.T):
        close(lidar(other), value, rtol=1e-10)
    # delta has the unit of a squared embedding, and is the only scale there is.
    close(lidar(100 * views, delta=1e-4 * 100**2), value, rtol=1e-10)
    assert float(lidar(views / 100)) != pytest.approx(float(value), rel=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_lidar_finds_the_planted_dimensions(seed):
    # k of 12 directions tell samples apart; RankMe also counts the loud ones that do not.
    generator, n, v, d, k = seeded(seed), 2000, 40, 12, 4
    signal = torch.zeros(1, n, d, dtype=torch.float64)
    signal[..., :k] = 10 * normal(generator, 1, n, k)
    views = signal + normal(generator, v, n, d) * torch.cat([torch.ones(k), 10 * torch.ones(d - k)])
    # In expectation: signal over noise, and everywhere the noise 1/(v - 1) of a mean of v views.
    expected = slow_effective_rank([(100 + 1 / v) * v / (v - 1)] * k + [1 / (v - 1)] * (d - k))
    close(lidar(views), expected, rtol=0.01)
    assert k < float(lidar(views)) < k + 0.1
    assert float(rankme(views.flatten(0, 1))) > 11
    isotropic = normal(generator, 1, n, d) + 0.1 * normal(generator, v, n, d)
    close(lidar(isotropic), d, rtol=0.01)


def test_lidar_survives_collapse_beside_loud_noise(generator):
    # W^-1 blows up the round-off of a null direction of B to far more than round-off of what is left.
    direction = rotation(generator, 3)
    between = direction @ torch.diag(tensor(1, 0, 0)) @ direction.T
    within = direction @ torch.diag(tensor(1e6, 0, 0)) @ direction.T
    got = float(lidar_from_covariances(between, within, 1e-4))
    assert 1 <= got < 1.02


def test_lidar_refuses_what_it_cannot_tell_apart(generator):
    views = normal(generator, 3, 5, 2)
    for bad, shape in ((views[:1], "1 view(s) of 5 sample(s)"), (views[:, :1], "3 view(s) of 1 sample(s)")):
        with pytest.raises(ValueError, match="LiDAR needs 2 views and 2 samples or more") as error:
            lidar(bad)
        assert shape in str(error.value)
    with pytest.raises(ValueError, match="the spectrum is zero"):
        lidar(views[:, :1].expand(3, 5, 2))
    with pytest.raises(ValueError, match="not positive definite; raise delta"):
        lidar(views[:1].expand(2, 5, 2), delta=0)
    assert lidar(views[:1].expand(2, 5, 2)).isfinite()
    with pytest.raises(ValueError, match="the embeddings hold NaN or infinity"):
        lidar(views * math.inf)
    identity = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="negative, and not by round-off"):
        lidar_from_covariances(-identity, identity)
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(1, 2\)"):
        lidar_from_covariances(identity, identity[:1])
    with pytest.raises(ValueError, match="entries of the covariance within samples hold NaN"):
        lidar_from_covariances(identity, identity * math.nan)


def between_within(views):
    v, n, _ = views.shape[-3:]
    centres = views.mean(-3)
    means = centres - centres.mean(-2, keepdim=True)
    rest = (views - centres.unsqueeze(-3)).flatten(-3, -2)
    return means.mT @ means / n, rest.mT @ rest / (n * v)


@pytest.mark.parametrize("runs", [(), (2,)])
def test_wide_embeddings_are_measured_in_the_span_of_their_rows(runs, generator):
    views = normal(generator, *runs, 3, 5, 16)
    wide = torch.nn.functional.pad(views, (0, 24)) @ rotation(generator, 40)  # 15 rows of 40 numbers, rank 15
    direct = lidar_from_covariances(*(between_within(wide)), 1e-4)
    torch.testing.assert_close(lidar(wide), direct, rtol=1e-9, atol=0)
    assert float(lidar(normal(generator, 2, 3, 100_000))) <= 2 + 1e-9  # d x d would take 80 GB
