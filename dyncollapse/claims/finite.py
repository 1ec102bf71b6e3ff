"""Not in the paper: the effects of finite batches."""

import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.sampling import SIGMAS, force_of_batches, largest_deviation, random_task
from dyncollapse.model.choices import VIEWS
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.losses import effective_negatives, infonce_logits
from dyncollapse.model.objective import Objective
from dyncollapse.theory.population import negatives_needed


@claim("finite-batch-threshold", "not in the paper (5h)", "largest deviation of X, in standard errors")
def finite_batch_threshold() -> Measured:
    """At W = 0 a batch of N has E[X] = (N - 1)/N (2 S_e - A_e): small batches change the rate, not the threshold.

    All softmax weights alpha are 1/N at W = 0. The mean of X over 20000 batches of 8 is compared entry by entry, for
    random covariances and both view conventions; two-sided, 2 S_e - A_e = 2 S. Control: without the factor (N - 1)/N
    the formula must be rejected.
    """
    n, batches, deviations = 8, 20_000, []
    for views in VIEWS:
        task = random_task(3, views, torch.Generator().manual_seed(0))
        force = force_of_batches(task, torch.zeros(3, 3, dtype=torch.float64), n, batches, seed=1)
        s_e, a_e = task.seen
        limit = 2 * s_e - a_e
        deviations.append(largest_deviation(force, (n - 1) / n * limit))
        assume(largest_deviation(force, limit) > SIGMAS, "the factor (N - 1)/N is seen")
    return Measured(max(deviations), SIGMAS)


@claim("finite-batches", "not in the paper (5h)", "difference of N times the shortfall from its law")
def finite_batches() -> Measured:
    """With N negatives log Z falls short of its limit by (E[k^2]/E[k]^2 - 1)/(2 N), k being one negative's kernel.

    The population limit therefore needs N well above `negatives_needed`, the mean of E[k^2]/E[k]^2 over anchors. For
    50000 anchors with Gaussian negatives of embedding variances 0.8 and 0.4 (Eq. 2), or 0.35 tau and 0.25 tau (dot
    products), Z is compared with the Gaussian integral. With delta = Z / E[Z] - 1, whose mean is 0, the shortfall is
    the mean of delta - log(1 + delta), in which nearly all of the noise cancels. N times the shortfall is measured at N
    = 32 and 64 and extrapolated to 1 / N = 0, with an error of order (needed / N)^2. The bound is five standard errors
    plus this error; the law is more than eight times as large. The loss that is closer to its bound is reported.
    """
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(50_000, *shape, 2, generator=generator, dtype=torch.float64) for shape in ((), (64,))]
    measured = [_shortfall(Objective(), [0.8, 0.4], *draws), _shortfall(Objective("dot", 1.0), [0.35, 0.25], *draws)]
    return max(measured, key=lambda one: one.value / one.bound)


def _shortfall(objective: Objective, variances: list[float], *draws: Tensor) -> Measured:
    """N times the shortfall of log Z from its limit, less the law, for embeddings with these variances.

    `draws` are standard normal numbers for the anchors (a, 2) and their negatives (a, 64, 2).
    """
    anchors, c = len(draws[0]), torch.tensor(variances, dtype=torch.float64)
    task, p = GaussianTask(torch.diag(c), torch.diag(c)), torch.eye(2, dtype=torch.float64)
    z, y = (c.sqrt() * draw for draw in draws)
    if objective.loss == "dot":
        logits, limit = (z.unsqueeze(1) * y).sum(-1), (c * z.square()).sum(-1) / 2
    else:
        logits = -(z.unsqueeze(1) - y).square().sum(-1) / 2
        limit = -(torch.log1p(c).sum() + (z.square() / (1 + c)).sum(-1)) / 2
    kernel, shortfalls = torch.exp(logits - limit.unsqueeze(-1)), []
    for n in (32, 64):
        delta = kernel.view(anchors, -1, n).mean(-1) - 1
        shortfalls.append(n * (delta - torch.log1p(delta)).mean(-1))
    extrapolated, needed = 2 * shortfalls[1] - shortfalls[0], float(negatives_needed(p, task, objective))
    law, bound = (needed - 1) / 2, SIGMAS * float(extrapolated.std()) / anchors**0.5 + (needed / 32) ** 2
    assume(law > 8 * bound, "the law is eight times the bound")
    return Measured(abs(float(extrapolated.mean()) - law), bound)


@claim("separated-embeddings-freeze", "not in the paper (5h)", "largest 1 - alpha_ii of separated embeddings")
def separated_embeddings_freeze() -> Measured:
    """Finite batches freeze: once embeddings separate, alpha_ii tends to 1, and every force vanishes with 1 - alpha_ii.

    128 pairs without augmentation in 16 dimensions, each with embedding variance 4. The share 1 - alpha_ii that the
    softmax leaves to the negatives has vanished, that is fallen below a thousandth, where infinitely many samples would
    still keep it of order 1. Control: at embedding variance 0.01 the negatives must hold nearly everything.
    """
    task = GaussianTask.block(16, 0, 0.0, 1.0)
    pairs = task.sample(128, torch.Generator().manual_seed(0))
    shares = [1 - torch.softmax(infonce_logits(p * pairs.anchor, p * pairs.anchor), -1).diagonal() for p in (0.1, 2)]
    assume(float(shares[0].min()) > 0.9, "close embeddings feel all negatives")
    return Measured(float(shares[1].max()), 1e-3)


@claim("effective-negatives", "not in the paper (5h)", "largest relative difference")
def effective_negatives_counted() -> Measured:
    """The effective number of candidates of a softmax row is the exponential of its entropy.

    Rows that share their weight evenly among k of 12 candidates, k = 1 to 12, must count as k, and the mean over these
    rows as 6.5, the mean of k. The bound is round-off.
    """
    counts = torch.arange(1, 13, dtype=torch.float64)
    alpha = torch.ones(12, 12, dtype=torch.float64).tril() / counts.unsqueeze(-1)
    single = [float(effective_negatives(row.expand(12, 12))) for row in alpha]
    errors = [abs(found / float(count) - 1) for found, count in zip(single, counts, strict=True)]
    return Measured(max(*errors, abs(float(effective_negatives(alpha)) / 6.5 - 1)), ROUND_OFF)
