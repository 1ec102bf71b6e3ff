import torch
from helpers.reference import normal

from dyncollapse import PairMoments
from dyncollapse.claims.populations import exchangeable, masked_views, moments_of, skewed_pairs


def test_an_exchangeable_population_has_both_orders_of_every_pair(generator):
    first, second = normal(generator, 5, 3), normal(generator, 5, 3) + 10
    pairs = exchangeable(first, second)
    torch.testing.assert_close(pairs.anchor[:5] - pairs.positive[:5], first - second)
    torch.testing.assert_close(pairs.anchor[5:], pairs.positive[:5])
    torch.testing.assert_close(pairs.positive[5:], pairs.anchor[:5])
    torch.testing.assert_close(pairs.anchor.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-14)


def test_skewed_pairs_are_no_gaussians_and_may_be_opposed(generator):
    pairs = skewed_pairs(2_000, 4, generator)
    scores = pairs.anchor / pairs.anchor.std(0)
    assert float(scores.pow(3).mean(0).abs().max()) > 0.3
    commutator = moments_of(pairs).seen[0] @ moments_of(pairs).seen[1]
    assert float((commutator - commutator.T).abs().max()) > 0.1
    smallest = [
        float(torch.linalg.eigvalsh(moments_of(skewed_pairs(2_000, 4, generator, opposed)).shared)[0])
        for opposed in (0.0, 2.5)
    ]
    assert smallest[1] < -0.1 < smallest[0]


def test_masked_views_are_all_pairs_of_masks():
    images = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    first, second = masked_views(images)
    assert first.shape == second.shape == (2 * 4**3, 3)
    for image in torch.cat([first, second], 1).split(64):
        assert len(torch.unique(image, dim=0)) == 64
    for views in (first, second):
        assert bool(((views == 0) | (views == images.repeat_interleave(64, 0))).all())
        torch.testing.assert_close((views == 0).float().mean(0), torch.full((3,), 0.5))
    # Masks of both views are independent: what they share is E[x]^2 / 4, pixel by pixel.
    shared = PairMoments.from_pairs(first, second).shared
    torch.testing.assert_close(shared, torch.cov(images.double().T, correction=0) / 4)
