"""Not in the paper: sparse binary pixels under masks, where Eq. 2 sees more than the two moments."""

import math

import torch
from torch import Tensor

from dyncollapse.claims.beyond_one_layer import AT_REST
from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.one_axis import settle
from dyncollapse.claims.populations import masked_views, moments_of, unlike
from dyncollapse.claims.sampling import SIGMAS, largest_deviation
from dyncollapse.dynamics.flow import sample_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import PairMoments
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.population import population_force
from dyncollapse.theory.rest_modes import RestModes, rest_modes

REST, LIMITS = "not in the paper (one-axis.md, rest)", "not in the paper (one-axis.md, limits)"
# Eight equally likely images of two binary pixels, mostly dark: rho is 0.55 and 0.64 under masks with probability 1/2.
IMAGES = torch.tensor([[0, 0]] * 4 + [[1, 0]] * 2 + [[0, 1], [1, 1]], dtype=torch.float64)


def _population() -> Pairs:
    """All pairs of masked views, equally likely."""
    first, second = masked_views(IMAGES)
    mean = first.mean(0)
    return Pairs(first - mean, second - mean, "two-sided")


def _start(rest: RestModes, share: float) -> Tensor:
    """P at a share of the predicted rest point."""
    moved = rest.directions * rest.variance.sqrt() * share
    return moved.T.contiguous()


def _variances(product: Tensor, task: PairMoments) -> Tensor:
    """Variances of the embedding's principal components, in descending order."""
    return torch.linalg.eigvalsh(product @ task.view_cov @ product.mT).flip(-1)


@claim("pixels-rest-sgd", REST, "largest deviation of the variances, in standard errors")
def pixels_rest_sgd() -> Measured:
    """On binary pixels SGD rests where their moments say: at embedding variances 1 - rho for the spectral loss.

    Sparse images of two correlated pixels under random masks, 16 runs on fresh batches of 128 pairs, from 0.8 of the
    predicted P to t = 20. u^T S_e P^T P S_e u along the predicted directions u is averaged over the second half of the
    time, and compared with the closed form for the moments of the pixels. The loss is unbiased at every N, for any
    data, so that the bound is five standard errors over the runs. Control: the closed form without the correlation of
    the pixels must be rejected.
    """
    pairs, runs, steps, n = _population(), 16, 200, 128
    task, objective, generator = moments_of(pairs), Objective("spectral"), torch.Generator().manual_seed(0)
    rest = rest_modes(task, "spectral")
    rows = torch.randint(len(pairs.anchor), (steps + 1, runs, n), generator=generator)
    batches = [Pairs(pairs.anchor[some], pairs.positive[some], "two-sided") for some in rows]
    start = _start(rest, 0.8).expand(runs, 2, 2).contiguous()
    path = train((start,), batches, steps=steps, lr=0.1, objective=objective, records=steps)
    seen = path.product[path.time > 10] @ task.view_cov @ rest.directions
    found = seen.square().sum(-2).mean(0)  # (runs, modes)
    view, shared = (torch.diag(cov.diagonal()) for cov in (task.view_cov, task.shared))
    wrong = rest_modes(PairMoments.from_covariances(view, shared), "spectral").variance
    assume(largest_deviation(found, wrong) > SIGMAS, "the correlation of the pixels matters")
    return Measured(largest_deviation(found, rest.variance), SIGMAS)


def _eq2(z: Tensor, z_pos: Tensor, negatives: Tensor) -> Tensor:
    """Eq. 2 in the limit of infinitely many negatives, each as likely as the next of the population."""
    apart = (z[..., :, None, :] - negatives[..., None, :, :]).square().sum(-1)
    repulsion = torch.logsumexp(-apart / 2, -1) - math.log(z.shape[-2])
    return ((z - z_pos).square().sum(-1) / 2 + repulsion).mean(-1)


@claim("infonce-binary-pixels", LIMITS, "largest relative deviation", expected=False)
def infonce_binary_pixels() -> Measured:
    """The Gaussian limit of Eq. 2 predicts embedding variances at rest within 10 % also where pixels are binary.

    It needs Gaussian views: sparse binary pixels rest at about half its values, although the number of living modes is
    right. Eight images of two pixels are masked in all ways; the exact limit of Eq. 2 on this population, the mean of
    its kernel over all views, is integrated until it rests, and the variances of the embedding are compared with
    `rest_modes`. Controls: near zero, where the loss is of second order, force and limit must agree to 1e-5; and on the
    same population the vcreg loss must rest at its prediction.
    """
    pairs = _population()
    task = moments_of(pairs)
    rest, exact = rest_modes(task), Objective(_eq2)
    small = _start(rest, 1e-3)
    (gradient,) = exact.gradient((small,), pairs)
    assume(unlike(small @ population_force(small, task, Objective()), -gradient) < 1e-5, "near zero the limit is exact")
    vcreg, start = Objective("vcreg"), _start(rest, 0.8)
    p = settle((start,), task, vcreg)
    (gradient,) = vcreg.gradient((p,), pairs)
    assume(float(gradient.abs().max()) < AT_REST, "vcreg rests at its prediction")
    path = sample_flow((start,), pairs, 200.0, objective=exact, rtol=1e-5, method="DOP853")
    found = _variances(path.product[-1], task)
    assume(float(found.min()) > 0.05, "both modes live, as predicted")
    return Measured(float((found / rest.variance - 1).abs().max()), 0.1)
