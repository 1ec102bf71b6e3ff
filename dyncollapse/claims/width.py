"""Not in the paper: who finds room in a narrow embedding, and why Barlow Twins has many rest points."""

import math

import torch
from torch import Tensor

from dyncollapse.claims.beyond_one_layer import AT_REST
from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.one_axis import BARLOW, CONVEX, SOURCE, rest_of, settle
from dyncollapse.claims.populations import moments_of, skewed_pairs, unlike
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import PairMoments

# Errors of the solver at rtol 1e-7 that add up along a line of rest points.
ALONG = 1e-6
# Covariances between the views and of a view along four axes: gamma = 0.25, 0.6, 0.8 and 0.9 orders them in reverse.
SHARED = torch.tensor([1.0, 0.6, 0.2, 0.09], dtype=torch.float64)
VIEW_VARS = torch.tensor([4.0, 1.0, 0.25, 0.1], dtype=torch.float64)


def _start(outputs: int, scale: float, seed: int) -> tuple[Tensor, ...]:
    return gaussian_init([4, outputs], torch.Generator().manual_seed(seed), scale=scale)


@claim("narrow-outputs", SOURCE, "relative difference of P^T P at rest")
def narrow_outputs() -> Measured:
    """With m outputs the m modes of largest gain survive, at their full rest value; the others find no room.

    Moments of 60 skewed pairs in both orders, which do not commute, all of whose four modes live with four outputs.
    Population flows of Eq. 2, the spectral and dot-product loss from two random starts each, with two outputs, are
    integrated until they rest. Control: with four outputs the third mode must live. What remains is the solver's error.
    """
    task, worst = moments_of(skewed_pairs(60, 4, torch.Generator().manual_seed(4))), 0.0
    for objective in CONVEX[:3]:
        rest = rest_of(task, objective, 2)
        assume(float(rest_of(task, objective).variance[2]) > 0.1, "with room the third mode lives")
        for seed in range(2):
            p = settle(_start(2, 0.3, seed), task, objective)
            worst = max(worst, unlike(p.T @ p, rest.gram))
    return Measured(worst, AT_REST)


@claim("barlow-rest", SOURCE, "largest difference of P G P^T from a projection of its rank")
def barlow_rest() -> Measured:
    """Barlow Twins' cross-covariance rests at P G P^T = I, or with as many ones as G has positive eigenvalues.

    Whatever the start: moments of 60 skewed pairs in both orders with one negatively correlated direction. With four
    outputs P G P^T has three eigenvalues 1 and one 0, with two outputs it is I. Population flows from three random
    starts each are integrated until they rest. What remains is the solver's error.
    """
    task, worst = moments_of(skewed_pairs(60, 4, torch.Generator().manual_seed(1), opposed=2.5)), 0.0
    positive = int((torch.linalg.eigvalsh(task.shared) > 0).sum())
    assume(positive == 3, "one direction is negatively correlated")
    for outputs in (2, 4):
        ones = (torch.arange(outputs) >= outputs - positive).to(torch.float64)
        for seed in range(3):
            p = settle(_start(outputs, 0.5, seed), task, BARLOW)
            worst = max(worst, float((torch.linalg.eigvalsh(p @ task.shared @ p.T) - ones).abs().max()))
    return Measured(worst, AT_REST)


@claim("barlow-mixes", SOURCE, "smallest relative difference of P^T P at rest", expected=False)
def barlow_mixes() -> Measured:
    """Barlow Twins rests on eigenvectors of G, and directions with negatively correlated views die.

    Only from starts along the eigenvectors. p_1^2 g_1 - p_2^2 |g_2| = 1 is a hyperbola of rest points, so that a random
    start keeps some of a negative direction. Moments and starts are those of `barlow-rest` with four outputs; P^T P is
    compared with the sum of v v^T / g over the positive eigenvalues, and the closest of three starts is reported. The
    claim needs it to rest there up to the solver's error, which nothing pulls back along a hyperbola. Controls: a start
    along the eigenvectors rests there, and so does a random start of the spectral loss at its own rest point.
    """
    task = moments_of(skewed_pairs(60, 4, torch.Generator().manual_seed(1), opposed=2.5))
    g, v = torch.linalg.eigh(task.shared)
    expected = v * torch.where(g > 0, 1 / g, 0.0) @ v.T
    aligned, (other,) = settle((0.3 * v.T,), task, BARLOW), _start(4, 0.5, 0)
    assume(unlike(aligned.T @ aligned, expected) < ALONG, "aligned starts rest on eigenvectors")
    spectral = settle((other,), task, CONVEX[1])
    assume(unlike(spectral.T @ spectral, rest_of(task, CONVEX[1]).gram) < AT_REST, "the spectral loss has one rest")
    products = [settle(_start(4, 0.5, seed), task, BARLOW) for seed in range(3)]
    return Measured(min(unlike(p.T @ p, expected) for p in products), ALONG)


def _kept(chosen: Tensor) -> Tensor:
    """P^T P of Barlow Twins on some of the axes."""
    return torch.diag(torch.where(chosen, 1 / SHARED, 0.0))


@claim("barlow-no-selection", SOURCE, "smallest relative difference of P^T P at rest", expected=False)
def barlow_no_selection() -> Measured:
    """With m outputs Barlow Twins keeps m modes of its choice, those of largest gamma or of largest g, from any start.

    All modes lower its loss by 1, so that any m of them, or mixtures, may fill m outputs. Commuting moments whose gamma
    and g are in opposite order, two outputs, three random starts of 0.5. P^T P is compared with that of the two modes
    of largest g and with that of the two of largest gamma; the closest of all is reported, which the claim needs to be
    there up to solver's error. Control: the spectral loss keeps the two of largest gain, g gamma, from the same starts.
    """
    task = PairMoments.from_covariances(torch.diag(VIEW_VARS), torch.diag(SHARED))
    first, found = torch.arange(4) < 2, []
    for seed in range(3):
        start = _start(2, 0.5, seed)
        p = settle(start, task, BARLOW)
        found += [unlike(p.T @ p, _kept(chosen)) for chosen in (first, ~first)]
        other = settle(start, task, CONVEX[1])
        assume(unlike(other.T @ other, rest_of(task, CONVEX[1], 2).gram) < AT_REST, "the spectral loss selects")
    return Measured(min(found), AT_REST)


@claim("barlow-small-starts", SOURCE, "distance of the order in the start from 1 - g_3 / g_2")
def barlow_small_starts() -> Measured:
    """From small starts p0 Barlow Twins keeps the m fastest modes, up to a share of order p0^(1 - g_(m+1) / g_m).

    Modes grow at 4 g, and when the m-th fills the last output the next has reached p0^(1 - g_(m+1) / g_m). The moments
    of `barlow-no-selection`, where the modes of largest g have the smallest gamma; two outputs; starts of 1e-6 and 1e-8
    times a random matrix, two draws. The order is the slope of the log deviation of P^T P from the two fastest modes'
    against log p0. It must be 2/3; the next order in p0 moves it by less than 0.1 %. Control: the deviation is below
    1e-3.
    """
    task = PairMoments.from_covariances(torch.diag(VIEW_VARS), torch.diag(SHARED))
    worst, expected = 0.0, _kept(torch.arange(4) < 2)
    for seed in range(2):
        sizes = []
        for scale in (1e-6, 1e-8):
            start = _start(2, scale, seed)
            p = population_flow(start, task, 1e3, objective=BARLOW).product[-1]
            sizes.append(unlike(p.T @ p, expected))
        assume(max(sizes) < 1e-3, "the fastest modes are kept")
        order = math.log(sizes[0] / sizes[1]) / math.log(100)
        worst = max(worst, abs(order - (1 - float(SHARED[2] / SHARED[1]))))
    return Measured(worst, 1e-3)


@claim("barlow-decay-selects", SOURCE, "relative difference of P^T P at rest")
def barlow_decay_selects() -> Measured:
    """Any weight decay w makes Barlow Twins' rest point unique: eigenvectors of G of largest g, p^2 = (1 - w / 4g) / g.

    As w vanishes these are the modes that `rest_modes` returns without weight decay. Moments of `barlow-rest`, with a
    negatively correlated direction; w = 0.01; four outputs and two, from a random start. What remains is the solver's
    error. Controls: without decay the same start rests elsewhere, and the closed form at w = 1e-6 must be that without
    any to 1e-4.
    """
    task, worst = moments_of(skewed_pairs(60, 4, torch.Generator().manual_seed(1), opposed=2.5)), 0.0
    for outputs in (2, 4):
        start, rest = _start(outputs, 0.5, 0), rest_of(task, BARLOW, outputs)
        free = settle(start, task, BARLOW)
        assume(unlike(free.T @ free, rest.gram) > 0.01, "without decay the start decides")
        assume(unlike(rest_of(task, BARLOW, outputs, 1e-6).gram, rest.gram) < 1e-4, "the limit of vanishing decay")
        p = settle(start, task, BARLOW, 0.01)
        worst = max(worst, unlike(p.T @ p, rest_of(task, BARLOW, outputs, 0.01).gram))
    return Measured(worst, AT_REST)


@claim(
    "coordinate-losses", "not in the paper (one-axis.md, limits)", "largest relative change of the loss", expected=False
)
def coordinate_losses() -> Measured:
    """The losses vicreg and barlow-normalised are functions of P^T P: rotations of the embedding do not change them.

    Their hinge and their normalisation act on each output by itself. This is why no rest point in closed form is known
    to us; they are simulated. The loss of 60 skewed pairs in both orders at a random P is compared with that at R P,
    for a random rotation R. Control: for vcreg, barlow, the spectral loss and Eq. 2 nothing may change but round-off,
    nor for ntxent: its rest point is a function of P^T P, but no formula for it is known to us either.
    """
    generator = torch.Generator().manual_seed(0)
    pairs, p = skewed_pairs(60, 4, generator), 0.5 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]

    def change(objective: Objective) -> float:
        before, after = (float(objective.value((product,), pairs)) for product in (p, turn @ p))
        return abs(after / before - 1)

    blind = max(change(objective) for objective in (*CONVEX, BARLOW, Objective("ntxent")))
    assume(blind < 1e-12, "the other losses are blind to rotations")
    return Measured(max(change(Objective(name)) for name in ("vicreg", "barlow-normalised")), 1e-12)
