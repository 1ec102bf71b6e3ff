"""What the paper proves about one linear layer: Lemmas 1 and 2, Theorem 1 and Corollary 1 (Section 4)."""

import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.dynamics.frozen import frozen_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.choices import VIEWS
from dyncollapse.model.covariance import ContrastiveCovariance, contrastive_covariance
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.loss_gradients import infonce_gradients
from dyncollapse.model.losses import infonce, infonce_weights
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.simulation.dimensions import mode_dimensions

# Sums over a few hundred numbers of order 1 in float64 (eps = 2e-16), with two digits to spare.
ROUND_OFF = 1e-12


def small_network(depth: int, *, views: str = "one-sided", scale: float = 0.5) -> tuple[Weights, Pairs]:
    """A network and a batch without special structure: numbers of order 1, a rank-3 augmentation along its own axes.

    Args:
        depth: Layers, all of width 5.
        views: The view convention.
        scale: Standard deviation of the weights.

    Returns:
        The layers, and a batch of 24 pairs.
    """
    dim, generator = 5, torch.Generator().manual_seed(0)
    roots = (torch.randn(dim, rank, generator=generator, dtype=torch.float64) for rank in (dim, 3))
    data_cov, aug_cov = (root @ root.T for root in roots)
    pairs = GaussianTask(0.3 * data_cov, 0.3 * aug_cov, views).sample(24, generator)
    return gaussian_init([dim] * (depth + 1), generator, scale=scale), pairs


def covariance_at(weights: Weights, pairs: Pairs) -> ContrastiveCovariance:
    """Sigma0 and Sigma1 of Lemma 2 at the given weights."""
    product = end_to_end(weights)
    z, z_pos = pairs.anchor @ product.T, pairs.positive @ product.T
    alpha = infonce_weights(z, z_pos, None if pairs.views == "one-sided" else z_pos)
    return contrastive_covariance(pairs.anchor, pairs.positive, alpha, pairs.negatives)


def loss_gradient(weights: Weights, pairs: Pairs) -> tuple[Tensor, ...]:
    """Differentiate Eq. 2 automatically, the batch sent through one layer after the other."""
    layers = [w.detach().requires_grad_() for w in weights]
    z, z_pos = pairs.anchor, pairs.positive
    for w in layers:
        z, z_pos = z @ w.T, z_pos @ w.T
    return torch.autograd.grad(infonce(z, z_pos, None if pairs.views == "one-sided" else z_pos), layers)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """|got - expected| / |expected| in the Frobenius norm."""
    return float((got - expected).norm() / expected.norm())


def _kernel(z: Tensor, z_pos: Tensor) -> Tensor:
    """The summands of Z_i in Eq. 2: exp(-|z_i - z_j|^2 / 2), and exp(-|z_i - z'_i|^2 / 2) in place i."""
    squares = (z.unsqueeze(1) - z).square().sum(-1)
    own = torch.eye(len(z), dtype=torch.bool)
    return torch.exp(-torch.where(own, (z - z_pos).square().sum(-1), squares) / 2)


@claim("lemma-1", "Lemma 1", "relative error of W'")
def lemma_1() -> Measured:
    """One linear layer under Eq. 2 moves by W' = -G with G = sum_i (g_{z_i} x_i^T + g_{z'_i} x'_i^T) / N.

    The gradients with respect to the embeddings are the paper's: g_{z_i} = sum_{j!=i} alpha_ij (z_j - z'_i) +
    sum_{j!=i} alpha_ji (z_j - z_i) and g_{z'_i} = sum_{j!=i} alpha_ij (z'_i - z_i). The sum is compared with automatic
    differentiation of Eq. 2 as printed, and with the gradient that training and flows use. All three are exact, so the
    bound is round-off. The factor 1 / N is a convention: the paper sums over the batch, the package averages.
    """
    (weight,), pairs = small_network(depth=1)
    w = weight.requires_grad_()
    z, z_pos = pairs.anchor @ w.T, pairs.positive @ w.T
    kernel = _kernel(z, z_pos)
    share = kernel / kernel.sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(-share.diagonal().log().mean(), w)
    with torch.no_grad():
        g, g_pos = infonce_gradients(z, z_pos)
        summed = g.T @ pairs.anchor + g_pos.T @ pairs.positive
        (used,) = Objective().gradient((w,), pairs)
    return Measured(max(relative_error(summed, expected), relative_error(used, expected)), ROUND_OFF)


@claim("lemma-2", "Lemma 2", "relative error of -W X")
def lemma_2() -> Measured:
    """The gradient is G = -W X, where X = Sigma0 - Sigma1 is a data covariance minus an augmentation covariance.

    Sigma0 sums the outer products of the differences x_i - y_j to the negatives, weighted by the softmax weights
    alpha_ij; Sigma1 sums those of the differences x'_i - x_i, weighted by 1 - alpha_ii. The product is compared with
    automatic differentiation of Eq. 2 for the paper's one-sided views (y = x), and for two-sided views (y = x'), for
    which the lemma holds as well. Both sides are exact: the bound is round-off. Erratum: the paper's Eq. 6 prints X
    with a stray leading minus sign; its App. B.2 has the sign right.
    """
    errors = []
    for views in VIEWS:
        weights, pairs = small_network(depth=1, views=views)
        force = covariance_at(weights, pairs).force
        errors.append(relative_error(-weights[0] @ force, loss_gradient(weights, pairs)[0]))
    return Measured(max(errors), ROUND_OFF)


@claim("lemma-2-psd", "Lemma 2", "smallest eigenvalue over the largest")
def lemma_2_psd() -> Measured:
    """Both sides of the contrastive covariance, Sigma0 and Sigma1, are positive semi-definite.

    Taken over almost coinciding to well separated embeddings (weights of 0.1, 0.5 and 2) and over both view
    conventions. The augmentation acts on only three of five dimensions, so that Sigma1 has eigenvalues that are exactly
    zero. Round-off gives them either sign, and the bound allows for no more than that.
    """
    smallest = []
    for views in VIEWS:
        for scale in (0.1, 0.5, 2.0):
            covariance = covariance_at(*small_network(depth=1, views=views, scale=scale))
            for side in (covariance.data, covariance.augmentation):
                eigenvalues = torch.linalg.eigvalsh(side)
                smallest.append(float(eigenvalues[0] / eigenvalues[-1].abs()))
    return Measured(min(smallest), -ROUND_OFF, ">=")


@claim("theorem-1", "Theorem 1", "relative error of W(t) along the eigenvectors of X")
def theorem_1() -> Measured:
    """With a fixed X one linear layer moves as W(t) = W(0) exp(X t).

    A negative eigenvalue of X, the effect of strong augmentation, thus makes W vanish along its eigenvector q. X is
    taken from one batch and has eigenvalues of both signs. The flow W' = W X up to t = 2 is computed by the ODE solver
    and by the matrix exponential, and compared with W(0) q exp(lambda t) for each eigenvector separately, so that a
    vanishing direction counts as much as one that has become a million times larger. The solver errs by 1e-12 of the
    whole matrix per step. Relative to the smallest direction that is a million times more, which is the bound of 1e-6.
    """
    weights, pairs = small_network(depth=1)
    rates, vectors = torch.linalg.eigh(covariance_at(weights, pairs).force)
    assume(bool(rates[0] < 0 < rates[-1]), "X has eigenvalues of both signs")
    errors = []
    for method in ("DOP853", "expm"):
        path = frozen_flow(weights, vectors * rates @ vectors.T, [0.5, 1.0, 2.0], rtol=1e-12, method=method)
        expected = (weights[0] @ vectors) * torch.exp(rates * path.time.view(-1, 1, 1))
        errors.append(float(((path.product @ vectors - expected).norm(dim=-2) / expected.norm(dim=-2)).max()))
    return Measured(max(errors), 1e-6)


def _augmented_share(strength: float) -> tuple[float, float]:
    """Largest augmented over smallest unaugmented singular value of one layer: by SGD, by the population flow."""
    dim, aug_dim, lr, steps = 8, 4, 0.2, 1_000
    task, generator = GaussianTask.block(dim, aug_dim, strength), torch.Generator().manual_seed(0)
    weights = gaussian_init([dim, dim], generator)
    paths = (
        train(weights, task.stream(32, generator), lr=lr, steps=steps, records=2),
        population_flow(weights, task, lr * steps),
    )
    values = (mode_dimensions(path.final(), task).singular_value for path in paths)
    sgd, flow = (float(v[dim - aug_dim :].max() / v[: dim - aug_dim].min()) for v in values)
    return sgd, flow


@claim("corollary-1", "Corollary 1", "largest augmented over smallest unaugmented singular value")
def corollary_1() -> Measured:
    """Strong augmentation makes the embedding covariance of one layer low-rank.

    The paper's block task with half of the d = 8 dimensions augmented. At k = 1.5, above the threshold 1, the singular
    values of the augmented dimensions vanish. The ratio is measured at t = 200 for SGD on fresh batches of 32 and for
    the flow on infinitely many samples, and the larger of the two is reported. A dimension counts as collapsed below a
    hundredth of the others, which is the bound. Control: at k = 0.5 both ratios must stay above it.
    """
    assume(min(_augmented_share(0.5)) > COLLAPSED_BELOW, "no dimension collapses at k = 0.5")
    return Measured(max(_augmented_share(1.5)), COLLAPSED_BELOW)
