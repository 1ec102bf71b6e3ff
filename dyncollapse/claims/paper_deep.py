"""What the paper proves about two and more layers: Lemmas 3-7, Theorems 2 and 3, Corollary 2, Apps. B.5 and C."""

import itertools
import math
from functools import cache

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF, covariance_at, loss_gradient, relative_error, small_network
from dyncollapse.claims.sampling import SIGMAS
from dyncollapse.diagnostics.spectra import covariance_spectrum
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Mechanism
from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.frozen import mode_flow
from dyncollapse.dynamics.training import train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import balanced_init, gaussian_init, uniform_init
from dyncollapse.model.networks import Weights, end_to_end, forward, layer_gradients, singular_values
from dyncollapse.model.objective import Objective
from dyncollapse.simulation.dimensions import mode_dimensions
from dyncollapse.simulation.verdict import judge
from dyncollapse.theory.alignment import alignment_bound, alignment_matrix
from dyncollapse.theory.imbalance import imbalance
from dyncollapse.theory.population import population_force
from dyncollapse.theory.velocities import (
    alignment_velocity,
    layer_value_velocities,
    singular_value_velocities,
    singular_vector_velocities,
)

# Lemmas 4-7 are compared with difference quotients along the flow, this far before and after time 1/2.
STEP = 2.0**-8
# Once extrapolated they err by STEP^4 = 2e-10 times a fifth derivative, and the solver adds 1e-12 / STEP = 3e-10.
QUOTIENT_ERROR = 1e-7


@claim("lemma-3", "Lemma 3", "relative error of W_l'")
def lemma_3() -> Measured:
    """Two linear layers move by W1' = W2^T W2 W1 X and W2' = W2 W1 X W1^T.

    For any depth, W_l' = (W_L ... W_{l+1})^T P X (W_{l-1} ... W_1)^T with P = W_L ... W_1. Checked for two, three and
    four layers against automatic differentiation of Eq. 2, with the batch sent through one layer after the other. Both
    sides are exact: the bound is round-off.
    """
    errors = []
    for depth in (2, 3, 4):
        weights, pairs = small_network(depth)
        pull = end_to_end(weights) @ covariance_at(weights, pairs).force
        for velocity, gradient in zip(layer_gradients(weights, pull), loss_gradient(weights, pairs), strict=True):
            errors.append(relative_error(velocity, -gradient))
    return Measured(max(errors), ROUND_OFF)


@cache
def _moving_layers() -> tuple[Weights, Weights, Tensor]:
    """Two layers at five moments of their flow, their velocities in the middle, and the pull P X = -dL/dP there."""
    weights, pairs = small_network(depth=2)
    moments = 0.5 + STEP * torch.tensor([-1, -0.5, 0, 0.5, 1], dtype=torch.float64)
    path = sample_flow(weights, pairs, moments, rtol=1e-12).weights
    middle = tuple(w[2] for w in path)
    pull = end_to_end(middle) @ covariance_at(middle, pairs).force
    return path, tuple(-g for g in loss_gradient(middle, pairs)), pull


def _frames(path: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V along a path, each pair of singular vectors with the sign that it has in the middle."""
    u, s, vh = torch.linalg.svd(path)
    sign = torch.sign((u * u[2]).sum(-2, keepdim=True))
    return u * sign, s, vh.mT * sign


def _slope(path: Tensor) -> Tensor:
    """Derivative in the middle: central differences over the full and half the step, extrapolated (Richardson)."""
    wide, narrow = (path[4] - path[0]) / (2 * STEP), (path[3] - path[1]) / STEP
    return (4 * narrow - wide) / 3


@claim("lemma-4", "Lemma 4", "relative error of the singular values' velocities")
def lemma_4() -> Measured:
    """The singular values of W = U S V^T move by s_k' = u_k^T W' v_k.

    Both layers of a network follow the gradient flow of one batch, and W' at t = 1/2 is computed by automatic
    differentiation. The formula is compared with difference quotients of the singular values over h = 1/256 before and
    after, extrapolated to fourth order. The bound covers the error of the extrapolation, h^4 = 2e-10 times a derivative
    of up to some hundred, and the solver's error of 1e-12 / h.
    """
    path, velocities, _ = _moving_layers()
    errors = [
        relative_error(singular_value_velocities(w[2], w_dot), _slope(singular_values(w)))
        for w, w_dot in zip(path, velocities, strict=True)
    ]
    return Measured(max(errors), QUOTIENT_ERROR)


@claim("lemma-5", "Lemma 5", "relative error of the singular vectors' velocities")
def lemma_5() -> Measured:
    """The singular vectors move by U' = U (H o [U^T W' V S + S V^T W'^T U]), V' = V (H o [V^T W'^T U S + S U^T W' V]).

    H_kl = 1 / (s_l^2 - s_k^2) off the diagonal and 0 on it, so that vectors of close singular values turn fast. The
    flow and the bound are those of Lemma 4. Signs of singular vectors are arbitrary: along the path each vector has the
    sign that makes its overlap with the vector at t = 1/2 positive. Erratum: the paper's second formula and its proof
    drop the transpose of W'.
    """
    path, velocities, _ = _moving_layers()
    errors = []
    for w, w_dot in zip(path, velocities, strict=True):
        u, _, v = _frames(w)
        u_dot, v_dot = singular_vector_velocities(w[2], w_dot)
        errors += [relative_error(u_dot, _slope(u)), relative_error(v_dot, _slope(v))]
    return Measured(max(errors), QUOTIENT_ERROR)


@claim("lemma-6", "Lemma 6", "relative error of A'")
def lemma_6() -> Measured:
    """The alignment A = V2^T U1 obeys A' = A (H1 o [A^T F + F^T A]) - (H2 o [A F^T + F A^T]) A.

    Here F = S2 U2^T P X V1 S1, and H1, H2 are the H of Lemma 5 for the two layers. The paper writes F with the gradient
    -P X in place of P X, which turns the signs. The formula is compared with the difference quotient of V2^T U1 along
    the flow of Lemmas 4 and 5, with signs fixed in the same way and the same bound; `alignment_matrix` is compared with
    |A|. Theorem 2 attempts to derive the limit of A from this equation.
    """
    (w1, w2), _, pull = _moving_layers()
    a = _frames(w2)[2].mT @ _frames(w1)[0]
    errors = (
        relative_error(alignment_velocity(w1[2], w2[2], pull), _slope(a)),
        relative_error(alignment_matrix(w1[2], w2[2]).abs(), a[2].abs()),
    )
    return Measured(max(errors), QUOTIENT_ERROR)


@claim("lemma-7", "Lemma 7", "relative error of both layers' velocities")
def lemma_7() -> Measured:
    """Without alignment, s1_k' = sum_l A_lk s2_l (u2_l^T P X v1_k) and s2_k' = sum_l A_kl s1_l (u2_k^T P X v1_l).

    Every singular value of the other layer pulls, as much as the alignment matrix A lets it; with A = I this is Theorem
    3. The layers are those of Lemmas 4 to 6, far from aligned, and so are the difference quotients and the bound.
    """
    path, _, pull = _moving_layers()
    got = layer_value_velocities(path[0][2], path[1][2], pull)
    errors = [relative_error(v, _slope(singular_values(w))) for v, w in zip(got, path, strict=True)]
    return Measured(max(errors), QUOTIENT_ERROR)


@claim("conserved-imbalance", "App. B.5", "drift of C, relative to the layers' Gram matrices")
def conserved_imbalance() -> Measured:
    """The gradient flow conserves C = W1 W1^T - W2^T W2 of every two adjacent linear layers.

    The flow of one batch is integrated for two and for three layers, from starts that are not balanced. The solver
    keeps its error below 1e-8 per step and makes no use of C, so the drift of C shows how accurate the integration is;
    the bound leaves two digits of room. SGD does not conserve C: every step of rate lr adds a term in lr^2. Erratum:
    after (s1)^2 = (s2)^2 + C the paper's next line should read (s1)^2 - C.
    """
    drifts = []
    for depth in (2, 3):
        weights, pairs = small_network(depth)
        path = sample_flow(weights, pairs, [0.0, 1.0, 3.0])
        assume(relative_error(path.product[-1], path.product[0]) > 0.1, f"{depth} layers have moved")
        by_hand = []
        for w1, w2 in itertools.pairwise(path.weights):
            drift = torch.linalg.matrix_norm(w1 @ w1.mT - w2.mT @ w2 - w1[0] @ w1[0].T + w2[0].T @ w2[0])
            size = torch.linalg.matrix_norm(w1 @ w1.mT) + torch.linalg.matrix_norm(w2.mT @ w2)
            by_hand.append(float(drift.max() / size.max()))
        drifts += [path.imbalance_drift or 0.0, max(by_hand)]
        assume(abs(drifts[-2] - drifts[-1]) < ROUND_OFF, "the record has the drift of C")
    return Measured(max(drifts), 1e-6)


def _misalignment(weights: Weights) -> float:
    """1 - the smallest |A_kk|: 0 when A is the identity up to signs."""
    return 1 - float(alignment_matrix(*weights).diagonal(dim1=-2, dim2=-1).abs().min())


def _two_layers(variances: Tensor, rho: float, time: float) -> tuple[GaussianTask, Trajectory]:
    """Two layers from a small Gaussian start, on data of these variances and augmentation 2 rho times as large."""
    task = GaussianTask(torch.diag(variances), torch.diag(2 * rho * variances))
    weights = gaussian_init([len(variances)] * 3, torch.Generator().manual_seed(0))
    return task, population_flow(weights, task, [0.0, *torch.logspace(0, math.log10(time), 60).tolist()])


@claim("theorem-2-as-stated", "Theorem 2", "1 - smallest |A_kk| at the end", expected=False)
def theorem_2_as_stated() -> Measured:
    """If P never vanishes, X > 0 for all t and each layer's final singular values are distinct, A = V2^T U1 tends to I.

    Wrong as printed. On isotropic data (S = I, A = 0.6 I, d = 4, infinitely many samples) all assumptions hold, as the
    check verifies. P keeps full rank. X, of order 1 at the start and tending to 0, has no eigenvalue below -1e-5; since
    a singular value of P stops at its rest value, anything below 0 is the solver's error. Each layer's singular values
    end at least 1e-3 apart. But P comes to rest at a multiple of an orthogonal matrix, while C = W1 W1^T - W2^T W2 is
    conserved. W1 W1^T and W2^T W2 therefore share their eigenvectors in opposite order, and A becomes the anti-diagonal
    permutation: the measured number is 1 where the theorem demands 0, and any bound in between shows it. The gap in the
    proof: a norm of W that grows need not grow without bound.
    """
    task, path = _two_layers(torch.ones(4, dtype=torch.float64), rho=0.3, time=300.0)
    force = torch.linalg.eigvalsh(population_force(path.product, task, Objective()))
    assume(float(path.singular_values.min()) > 1e-6, "P keeps full rank")
    assume(float(force.min()) > -1e-5, "X is positive semi-definite along the flow")
    closest = min(float(singular_values(w).diff().abs().min()) for w in path.final())
    assume(closest > 1e-3, "each layer's singular values end distinct")
    return Measured(_misalignment(path.final()), 0.05)


@claim("theorem-2-with-gaps", "Theorem 2", "1 - smallest |A_kk| at the end")
def theorem_2_with_gaps() -> Measured:
    """Two layers align, A = V2^T U1 close to I, when the gaps of P's spectrum dominate the conserved C.

    This is what remains of Theorem 2. With data variances from 4 to 1/4 (d = 4, rho = 0.05), P comes to rest with
    distinct singular values that are far apart compared with C. W1 W1^T and W2^T W2, which differ by C, then have
    nearly the same eigenvectors. The bound is 1 - cos of the angle that Davis and Kahan's theorem allows for the final
    P and C. The layers start from the same weights as in `theorem-2-as-stated`, without alignment. A approaches I only
    as far as C allows.
    """
    variances = 0.25 * 16 ** torch.linspace(1, 0, 4, dtype=torch.float64)
    _, path = _two_layers(variances, rho=0.05, time=200.0)
    assume(_misalignment(tuple(w[0] for w in path.weights)) > 0.5, "the layers start without alignment")
    spectrum = torch.linalg.eigvalsh(imbalance(*path.final()))
    sine = float(alignment_bound(path.singular_values[-1], spectrum).max())
    assume(sine < 0.5, "gaps dominate C")
    return Measured(_misalignment(path.final()), 1 - (1 - sine**2) ** 0.5)


@claim("theorem-3", "Theorem 3", "relative error of the layers' singular values")
def theorem_3() -> Measured:
    """Aligned layers' singular values obey s1_k' = s1_k s2_k^2 (v1_k^T X v1_k) and s2_k' = s2_k s1_k^2 (v1_k^T X v1_k).

    Two layers start aligned and balanced (C = 0), which the flow preserves, and follow the flow of one batch. Along it
    x_k = v1_k^T X v1_k is recorded at 401 times and interpolated by a cubic spline. The two equations of each mode are
    then integrated on their own and compared with the singular values of the full flow. The error of the spline is of
    order (1 / 200)^4 and that of the solver 1e-10 per step, both well below the bound. Erratum: "V2 = U1^T" should be
    V2 = U1.
    """
    _, pairs = small_network(depth=2)
    weights = balanced_init([5] * 3, torch.Generator().manual_seed(0), scale=0.9, rate=0.5)
    path = sample_flow(weights, pairs, torch.linspace(0, 2, 401, dtype=torch.float64), rtol=1e-10)
    forces = torch.stack([covariance_at((p,), pairs).force for p in path.product])
    vh = torch.linalg.svd(path.weights[0]).Vh
    x = CubicSpline(path.time.numpy(), ((vh @ forces) * vh).sum(-1).numpy())
    values = [singular_values(w) for w in path.weights]
    assume(float(values[0].diff(dim=-1).abs().min()) > 1e-3, "no two modes cross")
    modes = mode_flow([v[0] for v in values], lambda t: torch.from_numpy(x(t)), 2.0, rtol=1e-10)
    return Measured(max(relative_error(m[-1].diag(), v[-1]) for m, v in zip(modes.weights, values, strict=True)), 1e-6)


@claim("corollary-2", "Corollary 2", "dimensions collapsed with two layers, of 8")
def corollary_2() -> Measured:
    """Two linear layers make the embedding covariance low-rank even under small augmentation.

    All 8 dimensions are augmented with a tenth of the threshold variance (rho = 0.1), so that augmentation kills none.
    With infinitely many samples and a Gaussian start of 0.05, those that are still below a hundredth of the largest
    singular value at t = 50 are counted. One is enough for the claim; one layer, the control, must have none. The claim
    is true only up to an escape time: a mode of two layers leaves zero at a rate proportional to its own size, so that
    small modes wait, but with rho < 1 all of them escape in the end.
    """
    collapsed = []
    for depth in (1, 2):
        task, generator = GaussianTask.block(8, 8, 0.1), torch.Generator().manual_seed(0)
        path = population_flow(gaussian_init([8] * (depth + 1), generator, scale=0.05), task, 50.0)
        collapsed.append(judge(mode_dimensions(path.final(), task)).mechanisms.count(Mechanism.IMPLICIT))
    assume(collapsed[0] == 0, "no dimension of one layer waits")
    return Measured(collapsed[1], 1, ">=")


def _least_addition(activation: str) -> Measured:
    """Collapsed dimensions that one more layer adds on average, for 1 to 4 layers trained by SGD.

    Returned for the layer that adds the fewest standard errors, with SIGMAS standard errors as the bound.
    """
    dim, runs, objective = 16, 32, Objective(activation=activation)
    task = GaussianTask.block(dim, dim, 0.01)
    probe = task.sample(1_000, torch.Generator().manual_seed(1)).anchor
    counts = []
    for depth in range(1, 5):
        generator = torch.Generator().manual_seed(depth)
        weights = uniform_init([dim] * (depth + 1), generator, (runs,))
        path = train(weights, task.stream(32, generator, (runs,)), lr=0.2, steps=250, objective=objective, records=2)
        spectrum = covariance_spectrum(forward(path.final(), probe, activation))
        counts.append((spectrum < COLLAPSED_BELOW**2 * spectrum[:, :1]).sum(-1).double())
    additions = []
    for before, after in itertools.pairwise(counts):
        error = float((before.var() + after.var()) / runs) ** 0.5
        additions.append(Measured(float(after.mean() - before.mean()), SIGMAS * error, ">="))
    return min(additions, key=lambda addition: addition.value / addition.bound)


@claim("appendix-c", "App. C, Fig. 11", "smallest number of collapsed dimensions that a layer adds")
def appendix_c() -> Measured:
    """Deeper linear networks collapse more dimensions.

    Networks of one to four layers of width 16 start like torch.nn.Linear and train for 250 steps of SGD (t = 50) on
    weakly augmented data (k = 0.01). A dimension counts as collapsed when its embedding variance is below 1e-4 of the
    largest; counts are averaged over 32 runs. Every added layer must raise the count by five standard errors, which is
    the bound. The layer that comes closest to missing it is reported.
    """
    return _least_addition("linear")


@claim("appendix-c-relu", "App. C, Fig. 11", "smallest number of collapsed dimensions that a layer adds")
def appendix_c_relu() -> Measured:
    """Deeper networks with ReLU between the layers collapse more dimensions, too.

    The same measurement and the same kind of bound as for `appendix-c`, for networks that no theorem of the paper
    covers.
    """
    return _least_addition("relu")
