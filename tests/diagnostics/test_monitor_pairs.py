import pytest
import torch
from helpers.monitor import ROUND_OFF, assert_same, gaussian, watched
from helpers.reference import VIEWS, normal

from dyncollapse import Monitor, contrastive_covariance, diagnose
from dyncollapse.diagnostics.lidar import lidar

# --- Pairs and more views


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("others", [1, 2, 3])
def test_pairs_equal_the_contrastive_covariance_of_equal_weights(views, others, generator):
    """With several positives, Sigma0 and Sigma1 are the means over them of those of (z, positive)."""
    n, d = 50, 4
    z, *positives = [normal(generator, n, d) + k for k in range(1 + others)]
    got = watched([z, *positives], 13, 14, views=views).compute().pairs
    alpha = torch.full((n, n), 1 / n, dtype=torch.float64)
    pairs = [contrastive_covariance(z, p, alpha, p if views == "two-sided" else None) for p in positives]
    for side in ("data", "augmentation"):
        expected = torch.stack([getattr(pair, side) for pair in pairs]).mean(0)
        scale = float(expected.abs().max())
        torch.testing.assert_close(getattr(got, side), expected, rtol=0, atol=ROUND_OFF * scale)


@pytest.mark.parametrize("v", [3, 4, 6])
def test_lidar_equals_that_of_the_stacked_views(v, generator):
    centres = normal(generator, 70, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    stacked = centres + 0.3 * normal(generator, v, 70, 5)
    report = watched(list(stacked), 20).compute()
    assert report.measures["lidar"] == pytest.approx(float(lidar(stacked)), rel=1e-9)
    assert report.intervals["lidar"] is None


def test_lidar_needs_three_views():
    for others in (0, 1):
        assert watched(gaussian(0, others=others)).compute().measures["lidar"] is None


def test_diagnose_takes_one_positive_several_and_numpys():
    z, one, two = gaussian(4, others=2)
    assert_same(diagnose(z, one), watched([z, one]).compute())
    assert_same(diagnose(z, [one]), watched([z, one]).compute())
    assert_same(diagnose(z, (one, two)), watched([z, one, two]).compute())
    assert_same(diagnose(z.numpy(), one.numpy()), watched([z, one]).compute())
    assert_same(diagnose(z.numpy(), [one.numpy(), two.numpy()]), watched([z, one, two]).compute())


# --- Order


@pytest.mark.seeds(3)
def test_a_file_sorted_by_class_is_judged_as_a_shuffled_one(generator):
    # Ten classes that differ along directions of their own; strong augmentation along the last eight of 16.
    centres = normal(generator, 10, 16)
    clean = centres.repeat_interleave(400, 0) + 0.3 * normal(generator, 4000, 16)
    shifted = clean + normal(generator, 4000, 16) * torch.tensor([0.1] * 8 + [4.0] * 8, dtype=torch.float64)
    order = torch.randperm(4000, generator=generator)
    rows, others = (clean, clean[order]), (shifted, shifted[order])
    ordered, mixed = (diagnose(*views, views="one-sided") for views in zip(rows, others, strict=True))
    assert ordered.augmentation_share == mixed.augmentation_share == 0.5
    monitor = Monitor(views="one-sided")
    for batch in zip(clean.split(100), shifted.split(100), strict=True):
        monitor.update(*batch)
    assert monitor.compute().augmentation_share == 0.5
