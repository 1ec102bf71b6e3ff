"""Not in the paper: two second moments of positive pairs decide the population flow of most losses, for any data."""

import itertools

import torch
from scipy.linalg import eigh
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.populations import masked_views, moments_of, skewed_pairs, unlike
from dyncollapse.claims.sampling import SIGMAS, largest_deviation, random_task
from dyncollapse.diagnostics.shared_signal import signal_rank
from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import PairMoments
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.modes import generalised_modes
from dyncollapse.theory.population import negatives_needed, objective_limit, population_force, population_loss

SOURCE = "not in the paper (one-axis.md, moments)"
MOMENT_LOSSES = (Objective("vcreg", invariance=0.7), Objective("barlow"), Objective("spectral"))


def _ratios(task: PairMoments) -> Tensor:
    """Rho by definition, A_e v = 2 rho S_e v, in ascending order, by another solver than the package's."""
    return torch.from_numpy(eigh((task.seen[1] / 2).numpy(), task.seen[0].numpy(), eigvals_only=True))


@claim("rho-is-one-minus-gamma", SOURCE, "largest difference of rho and 1 - gamma")
def rho_is_one_minus_gamma() -> Measured:
    """For two views of one kind A_e = 2 (S_e - G), so that rho = 1 - gamma, where G v = gamma S_e v.

    A population of 40 skewed pairs in both orders, some of whose directions are negatively correlated between the
    views. The covariance of a view, the second moment of differences and the cross-covariance are each computed from
    their definitions, rho from the first two and gamma from the first and the last, and the package's rho from the
    moments. Controls: some rho must exceed 1, and with one-sided views of the same pairs rho must differ from 1 -
    gamma. The bound is round-off.
    """
    pairs = skewed_pairs(40, 5, torch.Generator().manual_seed(0), opposed=2.0)
    x, y, n = pairs.anchor, pairs.positive, len(pairs.anchor)
    view, cross, shift = x.T @ x / n, x.T @ y / n, (x - y).T @ (x - y) / n
    gamma = torch.from_numpy(eigh(cross.numpy(), view.numpy(), eigvals_only=True)).flip(0)
    rho = torch.from_numpy(eigh(shift.numpy(), 2 * view.numpy(), eigvals_only=True))
    assume(float(rho[0]) < 0.5 and float(rho[-1]) > 1.1, "rho on both sides of 1")
    clean = (x + y) / 2
    one_sided = PairMoments.from_pairs(clean, y, "one-sided")
    assume(unlike(generalised_modes(one_sided)[0], 1 - gamma) > 0.1, "one-sided views have another rho")
    found = generalised_modes(moments_of(pairs))[0]
    return Measured(max(float((rho - 1 + gamma).abs().max()), float((found - rho).abs().max())), ROUND_OFF)


@claim("masked-pixels", SOURCE, "relative difference of S_e and G")
def masked_pixels() -> Measured:
    """Two views drawn alike and independently given the image share G = Cov(E[view | image]), with gamma in [0, 1].

    Pixels masked independently with probability 1/2 have E[view | image] = x / 2, hence G = Cov(x) / 4 and S_e = Cov(x)
    / 4 + diag(E[x^2]) / 4. 24 skewed images of four pixels, two of which are anti-correlated, are masked in all 256
    pairs of ways, so that the moments of the pairs are exact. gamma must lie in [0, 1]. Controls: views with one mask
    for both have another G, and with each pixel masked in exactly one of the two views some rho must exceed 1. The
    bound is round-off.
    """
    images = torch.rand(24, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(3)
    images[:, 1] = 1 - images[:, 0] + 0.1 * images[:, 1]
    first, second = masked_views(images)
    moments = PairMoments.from_pairs(first, second)
    gamma = 1 - _ratios(moments)
    assume(float(gamma.min()) > -ROUND_OFF and float(gamma.max()) < 1 + ROUND_OFF, "gamma lies in [0, 1]")
    covariance = torch.cov(images.T, correction=0)
    view = (covariance + torch.diag(images.square().mean(0))) / 4
    assume(unlike(PairMoments.from_pairs(first, first).shared, covariance / 4) > 0.1, "one mask for both shares more")
    opposite = PairMoments.from_pairs(first, images.repeat_interleave(256, 0) - first)
    assume(float(_ratios(opposite)[-1]) > 1.1, "opposite masks pass 1")
    return Measured(max(unlike(moments.view_cov, view), unlike(moments.shared, covariance / 4)), ROUND_OFF)


@claim("any-distribution", SOURCE, "relative error of P X")
def any_distribution() -> Measured:
    """spectral, vcreg and barlow see two moments: -dL/dP = P X of `population_force` for any distribution of pairs.

    The distribution is a population of 24 skewed pairs, each in both orders, with some rho above 1. For vcreg and
    barlow the loss over the whole population is that of infinitely many draws. The spectral loss compares different
    pairs, and its mean over all 48^2 batches of two draws is. The gradients are compared with P X from the population's
    moments, for random P of three outputs and six inputs. Both are exact: the bound is round-off. Control: Eq. 2, whose
    limit needs Gaussian pairs, must differ by a million times that.
    """
    generator = torch.Generator().manual_seed(0)
    pairs = skewed_pairs(24, 6, generator, opposed=2.0)
    moments, p = moments_of(pairs), 0.5 * torch.randn(3, 6, generator=generator, dtype=torch.float64)
    assume(float(_ratios(moments)[-1]) > 1, "some rho exceeds 1")
    drawn = torch.cartesian_prod(*[torch.arange(len(pairs.anchor))] * 2)
    twos = Pairs(pairs.anchor[drawn], pairs.positive[drawn], "two-sided")
    errors = []
    for objective in MOMENT_LOSSES:
        given = twos if objective.loss == "spectral" else pairs
        (gradient,) = objective.gradient((p,), given)
        errors.append(unlike(p @ population_force(p, moments, objective), -gradient))
    (gradient,) = Objective().gradient((p,), pairs)
    assume(unlike(p @ population_force(p, moments, Objective()), -gradient) > 1e-6, "Eq. 2 sees more than two moments")
    return Measured(max(errors), ROUND_OFF)


@claim("any-distribution-flow", SOURCE, "relative difference of P")
def any_distribution_flow() -> Measured:
    """The population flow from measured moments is the gradient flow of the loss on the population itself.

    vcreg and barlow on 50 skewed pairs in both orders, two layers of 4, 3 and 2 units from a random start: one solver
    follows the loss on the pairs, another the limit that only has their moments. P is compared at t = 0.3, 1 and 2. At
    rtol 1e-9 the solvers err by about 1e-8. Control: P must move by a tenth of its size or more.
    """
    generator, times = torch.Generator().manual_seed(0), [0.3, 1.0, 2.0]
    pairs = skewed_pairs(50, 4, generator, opposed=1.0)
    start, moments, errors = gaussian_init([4, 3, 2], generator, scale=0.4), moments_of(pairs), []
    for objective in MOMENT_LOSSES[:2]:
        exact = sample_flow(start, pairs, times, objective=objective, rtol=1e-9).product
        limit = population_flow(start, moments, times, objective=objective, rtol=1e-9).product
        assume(unlike(exact[-1], start[1] @ start[0]) > 0.1, "P moves")
        errors += [unlike(a, b) for a, b in zip(limit, exact, strict=True)]
    return Measured(max(errors), 1e-6)


@claim("moments-merge", SOURCE, "relative difference of the moments")
def moments_merge() -> Measured:
    """Moments from a stream of uneven batches, and merged from parts, are those of all pairs at once.

    500 pairs far from the origin, their parts with means of their own, for both view conventions. The reference follows
    the definitions about the common mean (one-sided: each view about its own), from all rows. Control: averaging the
    parts' moments without the shift of their means must be wrong. The bound is the round-off of numbers 100 times the
    spread.
    """
    generator, errors = torch.Generator().manual_seed(0), []
    x = torch.rand(500, 4, generator=generator, dtype=torch.float64).pow(2) + torch.linspace(0, 2, 500)[:, None] + 100
    y = x.flip(1) + torch.rand(500, 4, generator=generator, dtype=torch.float64)
    for views in ("two-sided", "one-sided"):
        about = (x, y) if views == "one-sided" else (torch.cat([x, y]), torch.cat([x, y]))
        a, b = (rows - mean.mean(0) for rows, mean in zip((x, y), about, strict=True))
        spread = a.T @ a if views == "one-sided" else (a.T @ a + b.T @ b) / 2
        expected = [m / 500 for m in (spread, (x - y).T @ (x - y), (a.T @ b + b.T @ a) / 2)]
        cuts = [0, 7, 8, 200, 499, 500]
        chunks = [(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts)]
        parts = [PairMoments.from_pairs(x[i:j], y[i:j], views) for i, j in itertools.pairwise([0, 30, 170, 500])]
        merged, streamed = parts[2].merged(parts[0]).merged(parts[1]), PairMoments.from_batches(chunks, views)
        for found in (merged, streamed, PairMoments.from_pairs(x, y, views)):
            errors += [unlike(m, e) for m, e in zip((*found.seen, found.shared), expected, strict=True)]
        averaged = torch.stack([part.view_cov * (part.samples or 0) for part in parts]).sum(0) / 500
        assume(unlike(averaged, expected[0]) > 0.1, "the shifts of the means matter")
    return Measured(max(errors), 100 * ROUND_OFF)


def _noise(kind: str, n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Noise of variance 1: Gaussian, uniform, or Student's t with 5 degrees of freedom in every pixel."""
    if kind == "uniform":
        return (torch.rand(n, dim, generator=generator, dtype=torch.float64) - 0.5) * 12**0.5
    normal = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    if kind == "Gaussian":
        return normal
    squares = torch.randn(n, dim, 5, generator=generator, dtype=torch.float64).square().sum(-1)
    return normal / (squares / 3).sqrt()


@claim("signal-rank-bound", SOURCE, "largest number of directions counted too many")
def signal_rank_bound() -> Measured:
    """The sequential test of canonical correlations bounds the signal rank from below: it never counts too many.

    10 of 24 mixed directions carry signal of graded strength that both views share, the others only noise. There are
    three draws each of 100, 300 and 3000 samples, with Gaussian, uniform and heavy-tailed noise (Student's t with 5
    degrees of freedom). Each draw may count too many with a probability of 0.1 %: of 27 draws one does in 3 % of cases.
    Control: 3000 samples must show at least nine of the ten directions, and 100 samples fewer.
    """
    generator, signals, dim = torch.Generator().manual_seed(0), 10, 24
    mix = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    strength = torch.cat([torch.linspace(0.8, 2.0, signals), torch.zeros(dim - signals)]).to(torch.float64)
    counts: dict[int, list[int]] = {}
    for n, kind, _ in itertools.product((100, 300, 3000), ("Gaussian", "uniform", "heavy tails"), range(3)):
        signal = torch.randn(n, dim, generator=generator, dtype=torch.float64) * strength
        views = [(signal + _noise(kind, n, dim, generator)) @ mix for _ in range(2)]
        counts.setdefault(n, []).append(signal_rank(*views))
    assume(min(counts[3000]) >= signals - 1, "many samples show the signal")
    assume(max(counts[100]) < min(counts[3000]), "few samples show less of it")
    return Measured(max(max(found) for found in counts.values()) - signals, 0)


@claim("correlated-views-growth", SOURCE, "largest deviation of the growth rates, in standard errors")
def correlated_views_growth() -> Measured:
    """Near zero a mode grows at u^T X0 u for every loss, and shrinks where the views are negatively correlated.

    Two-sided noises with a covariance of -0.9, 0 and 0.5 times their variance give rho = 1.3, 0.5 and 0.3. -dL/dP at P
    = 1e-4 I, divided by 1e-4, is averaged over 1500 batches of 40 Gaussian pairs and compared with `growth_rates` of
    infinitely many: 2 g for Eq. 2, 4 g for spectral, vcreg with lambda = 1 and barlow, with g the covariance between
    views, and 4 (1 - lambda rho) s_e for vcreg in general. Eq. 2 and losses about the batch's mean give the share (N -
    1) / N. Control: the first mode must shrink and the others grow.
    """
    s, noise = torch.tensor([0.5, 0.6, 1.0]).double(), torch.tensor([1.0, 0.6, 0.4]).double()
    correlation = torch.tensor([-0.9, 0.0, 0.5]).double()
    task = GaussianTask(torch.diag(s), torch.diag(noise), "two-sided", torch.diag(correlation * noise))
    n, small, g, s_e = 40, 1e-4 * torch.eye(3, dtype=torch.float64), s + correlation * noise, s + noise
    pairs, deviations = task.sample(n, torch.Generator().manual_seed(1), (1_500,)), []
    assume(float(g[0]) < 0 < float(g[1:].min()), "one mode shrinks")
    share, rho = (n - 1) / n, 1 - g / s_e
    cases = {
        Objective(): 2 * share * g,
        Objective("spectral"): 4 * g,
        Objective("barlow"): 4 * share * g,
        Objective("vcreg", invariance=2.0): 4 * share * s_e - 8 * s_e * rho,
    }
    for objective, rates in cases.items():
        (gradient,) = objective.gradient((small.expand(1_500, 3, 3).contiguous(),), pairs)
        deviations.append(largest_deviation(-gradient / 1e-4, torch.diag(rates)))
        limit = objective_limit(task, objective).growth.diagonal()
        assume(unlike(limit, rates) < 2 / n, "the package's limit is that of large batches")
    return Measured(max(deviations), SIGMAS)


@claim("finite-batches-moments", SOURCE, "largest deviation of the losses, in standard errors")
def finite_batches_moments() -> Measured:
    """Batches of N pairs raise |Cov - I|^2 of vcreg and barlow by the law of Wishart matrices with n = N - 1.

    E tr(Cov^2) = [n (n + 1) tr(M^2) + n (tr C)^2] / N^2 and E tr(Cov) = n tr(M) / N, with C the covariance of
    embeddings, and M = C for vcreg, M = P G P^T for barlow. The mean loss of 2000 batches of 20 Gaussian pairs is
    compared with this, at a P that nearly whitens the views. The repulsion of a batch therefore exceeds that of the
    limit by a share of at most `negatives_needed` / N, as the check requires. Control: the limit itself must be
    rejected. The bound is five standard errors.
    """
    generator, n, batches, deviations = torch.Generator().manual_seed(0), 20, 2_000, []
    task = random_task(3, "two-sided", generator)
    p = torch.linalg.inv(task.seen_root) + 0.1 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    pairs = task.sample(n, generator, (batches,))
    c, free = p @ task.seen[0] @ p.T, n - 1
    for objective, m in ((Objective("vcreg", invariance=0.0), c), (Objective("barlow"), p @ task.shared @ p.T)):
        squares = (free * n * (m @ m).trace() + free * c.trace() ** 2) / n**2
        needed = float(negatives_needed(p, task, objective))
        assume(1 < float(squares / (m @ m).trace()) < 1 + needed / n, "negatives_needed is an upper bound")
        values = objective.value((p.expand(batches, 3, 3).contiguous(),), pairs)[:, None]
        expected = squares - 2 * free / n * m.trace() + 3
        limit = population_loss(p, task, objective)
        assume(largest_deviation(values, limit[None]) > SIGMAS, "the limit is rejected")
        deviations.append(largest_deviation(values, expected[None]))
    return Measured(max(deviations), SIGMAS)
