"""Not in the paper, several layers: Theorem 2 corrected, escape times, and what SGD adds to the flow."""

import itertools
import math

import torch
from torch import Tensor

from dyncollapse.alignment import (
    alignment_matrix,
    alignment_report,
    block_alignment,
    imbalance,
    isotropic_rest_layers,
)
from dyncollapse.claims.claim import Measured, assume, claim
from dyncollapse.claims.paper import relative_error, small_network
from dyncollapse.comparison import order_of_convergence, relative_distance
from dyncollapse.diagnosis import judge, mode_dimensions
from dyncollapse.equilibria import escape_time, growth_rates, rest_singular_values
from dyncollapse.flow import population_flow, sample_flow
from dyncollapse.gaussian import GaussianTask
from dyncollapse.networks import balanced_init, end_to_end, gaussian_init, singular_values
from dyncollapse.objective import Objective
from dyncollapse.training import train

RATES = [2.0**-e for e in range(5, 9)]


@claim("theorem-2-isotropic", "not in the paper (theory.md 5e)", "largest difference of |A| and of singular values")
def theorem_2_isotropic() -> Measured:
    """On isotropic data |A| becomes the anti-diagonal permutation, s1^2, s2^2 = (+-c + sqrt(c^2 + 4 p*^2)) / 2.

    c runs through the eigenvalues of the conserved C and p* is the rest value of every mode. Two layers, S = I,
    A = 0.6 I, infinitely many samples, from a Gaussian start to t = 1000, where nothing moves any more: |A| is
    compared with the permutation and both layers' singular values with the closed form, which knows the start only
    through C. What is left over is the solver's at rtol 1e-11.
    """
    task = GaussianTask.block(4, 4, 0.6, data_var=1.0)
    weights = gaussian_init([4] * 3, torch.Generator().manual_seed(0), scale=0.2)
    path = population_flow(weights, task, 1e3, rtol=1e-11, atol=1e-14)
    end, reverse = path.final(), torch.eye(4, dtype=torch.float64).flip(-1)
    errors = [(alignment_matrix(*end).abs() - reverse).abs().max()]
    c = torch.linalg.eigvalsh(imbalance(*weights)).flip(-1)
    assume(float(c.diff().abs().min()) > 1e-3, "C's eigenvalues are distinct")
    rest = float(rest_singular_values(task)[0])
    for layer, values in zip(end, isotropic_rest_layers(c, rest), strict=True):
        errors.append((singular_values(layer) - values.sort(descending=True).values).abs().max())
    return Measured(float(max(errors)), 1e-8)


@claim("theorem-2-certificate", "not in the paper (theory.md 5e)", "largest sine of misalignment over its bound")
def theorem_2_certificate() -> Measured:
    """Where the gaps of P exceed C, the layers' vectors differ by no more than Davis and Kahan's bound from P and C.

    Flows of two layers from Gaussian starts of 0.02 to 0.2 (four seeds each) on distinct variances, at t = 100: the
    sine of the angle between W1's left and W2's right singular spaces over the bound, wherever there is one. At
    least one bound has to be finite per start of 0.05 and less, and one below a tenth.
    """
    variances = 0.25 * 16 ** torch.linspace(1, 0, 4, dtype=torch.float64)
    task = GaussianTask(torch.diag(variances), torch.diag(0.1 * variances))
    ratios, bounds = [], []
    for scale in (0.02, 0.05, 0.2):
        weights = gaussian_init([4] * 3, torch.Generator().manual_seed(0), (4,), scale)
        end = population_flow(weights, task, 100.0).final()
        for w1, w2 in zip(*end, strict=True):
            report = alignment_report(w1, w2)
            finite = torch.isfinite(report.bounds)
            assume(scale > 0.05 or bool(finite.any()), f"a start of {scale} is certified somewhere")
            ratios += (report.sines / report.bounds)[finite].tolist()
            bounds += report.bounds.tolist()
    assume(0 < min(bounds) < 0.1, "some bound is tight")
    return Measured(max(ratios), 1.0)


@claim("theorem-2-balanced", "not in the paper (theory.md 5e)", "largest 1 - alignment over time")
def theorem_2_balanced() -> Measured:
    """Layers that start with C = lambda I are aligned for all time, whatever the data.

    C is conserved, and W2^T W2 = W1 W1^T - lambda I has the eigenvectors of W1 W1^T in the same order. Two layers,
    lambda = 0, 0.3 and -0.3, along the flow of one batch; the share of |A|^2 on matching blocks is measured at 30
    times. The control: the same data from a Gaussian start is not aligned.
    """
    _, pairs = small_network(depth=2)
    times = torch.linspace(0, 3, 30, dtype=torch.float64)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for offset in (0.0, 0.3, -0.3):
        path = sample_flow(balanced_init([5] * 3, generator, scale=0.5, imbalance=offset), pairs, times)
        assume(relative_error(path.product[-1], path.product[0]) > 0.1, "the layers move")
        worst = max(worst, *(1 - block_alignment(w1, w2) for w1, w2 in zip(*path.weights, strict=True)))
    w1, w2 = sample_flow(gaussian_init([5] * 3, generator, scale=0.5), pairs, times).final()
    assume(block_alignment(w1, w2) < 0.9, "a Gaussian start is not aligned")
    return Measured(worst, 1e-12)


# Two modes that data of variance 1 and 1/2 pull at different rates, rho = 0.3 each.
_ESCAPING = GaussianTask(torch.diag(torch.tensor([1.0, 0.5])).double(), torch.diag(torch.tensor([0.6, 0.3])).double())


def _escape_times(layers: tuple[Tensor, ...]) -> Tensor:
    """When each mode of diagonal layers passes half its rest value, with infinitely many samples."""
    half, rates, depth = rest_singular_values(_ESCAPING) / 2, growth_rates(_ESCAPING), len(layers)
    modes = zip(end_to_end(layers).diagonal().tolist(), half.tolist(), rates.tolist(), strict=True)
    last = max(escape_time(p0, level, x0, depth) for p0, level, x0 in modes)
    times = torch.linspace(0, 1.2 * last + 20, 500, dtype=torch.float64)
    log_p = population_flow(layers, _ESCAPING, times, rtol=1e-6).product.diagonal(dim1=-2, dim2=-1).log()
    found = []
    for path, level in zip(log_p.T, half.log(), strict=True):
        i = int((path > level).nonzero()[0])
        found.append(times[i] - (times[1] - times[0]) * (path[i] - level) / (path[i] - path[i - 1]))
    return torch.stack(found)


@claim("escape-one-layer", "not in the paper (theory.md 5f)", "relative deviation of the slope in log p0")
def escape_one_layer() -> Measured:
    """One layer's mode leaves zero after log(p* / p0) / x0, with x0 = 2 s_e (1 - rho).

    The time at which a mode passes half its rest value is measured from 1e-3 and from 1e-6, for two modes with
    different rates. It must grow by log(1000) / x0: the slope against log p0 is compared with -1 / x0, within 5 %.
    """
    starts = (1e-6, 1e-3)
    early, late = (_escape_times((p0 * torch.eye(2, dtype=torch.float64),)) for p0 in reversed(starts))
    slopes = (late - early) / math.log(starts[0] / starts[1])
    return Measured(float((slopes * growth_rates(_ESCAPING) + 1).abs().max()), 0.05)


@claim("escape-deep", "not in the paper (theory.md 5f)", "relative deviation of the exponent")
def escape_deep() -> Measured:
    """A mode of L >= 2 layers leaves zero after p0^-(2 - 2/L) / (2 (L - 1) x0): a power of its start, not a log.

    Balanced layers of depth 2 to 5, two modes, starts over two decades: the fitted exponent of the escape time
    against p0 is compared with -(2 - 2/L), relative, within 5 %. Implicit regularisation is this waiting.
    """
    starts, deviations = [1e-4, 1e-3, 1e-2], []
    for depth in (2, 3, 4, 5):
        times = [_escape_times((p0 ** (1 / depth) * torch.eye(2, dtype=torch.float64),) * depth) for p0 in starts]
        for mode in torch.stack(times).T:
            exponent = order_of_convergence(starts, mode.tolist())
            deviations.append(abs(exponent / (2 - 2 / depth) + 1))
    return Measured(max(deviations), 0.05)


@claim("escape-bound", "not in the paper (theory.md 5f)", "longest escape time over the balanced layers'")
def escape_bound() -> Measured:
    """Among aligned layers with the same product balanced ones escape last: their escape time bounds all others.

    p'/p = x sum_l (p / s_l)^2 is at least x L p^(2-2/L), the mean of L numbers being no less than their geometric
    mean. Layers of depth 2 to 4 with p0 = 1e-3 and singular values up to a factor of 2 and of 10 apart, infinitely
    many samples: the time at which a mode passes half its rest value, over that of balanced layers. The control:
    balanced layers take the closed form's time, within 5 %.
    """
    p0, eye, ratios = 1e-3, torch.eye(2, dtype=torch.float64), []
    for depth in (2, 3, 4):
        times = []
        for factor in (1.0, 2.0, 10.0):
            tilt = factor ** torch.linspace(-0.5, 0.5, depth, dtype=torch.float64)
            times.append(_escape_times(tuple(p0 ** (1 / depth) * t * eye for t in tilt)))
        closed = torch.tensor([escape_time(p0, 1.0, float(x), depth) for x in growth_rates(_ESCAPING)])
        assume(float((times[0] / closed - 1).abs().max()) < 0.05, "balanced layers take the closed form's time")
        ratios += [float((tilted / times[0]).max()) for tilted in times[1:]]
    return Measured(max(ratios), 1.0)


@claim("dead-or-waiting", "not in the paper (theory.md 5f)", "dimensions whose fate differs from their rho")
def dead_or_waiting() -> Measured:
    """A collapsed dimension with rho < 1 escapes by its escape time; one with rho >= 1 never does.

    Two layers in four modes, rho = 0.2, 0.5, 1.5, 3, infinitely many samples, Gaussian start of 0.01. At t = 10 all
    count as collapsed; the closed form then gives the two with rho < 1 an escape time. By twice the later one they
    must have passed half their rest values, and a hundred times later still the other two must not have grown.
    """
    variances, rho = torch.ones(4, dtype=torch.float64), torch.tensor([0.2, 0.5, 1.5, 3.0], dtype=torch.float64)
    task = GaussianTask(torch.diag(variances), torch.diag(2 * rho * variances))
    weights = gaussian_init([4] * 3, torch.Generator().manual_seed(0), scale=0.01)
    early = population_flow(weights, task, 10.0).final()
    small, rest, rates = mode_dimensions(early, task).singular_value, rest_singular_values(task), growth_rates(task)
    assume(float(small.max()) < 1e-2, "all dimensions are small at t = 10")
    modes = zip(small.tolist(), rest.tolist(), rates.tolist(), strict=True)
    times = [escape_time(p0, level, x0, 2) for p0, level, x0 in modes]
    assume([math.isfinite(t) for t in times] == [True, True, False, False], "two of four are given an escape time")
    later = population_flow(early, task, [2 * max(times[:2]), 200 * max(times[:2])])
    after, long_after = (mode_dimensions(tuple(w[i] for w in later.weights), task).singular_value for i in (0, 1))
    fates = judge(mode_dimensions(early, task), scale=1.0, rest=rest).fates
    assume(fates == ["waiting", "waiting", "dead", "dead"], "the diagnosis says so beforehand")
    wrong = (after[:2] < rest[:2] / 2).sum() + (long_after[2:] > small[2:].max()).sum()
    return Measured(int(wrong), 0)


@claim("sgd-first-order", "not in the paper (theory.md 5g)", "distance of the order in the learning rate from 1")
def sgd_first_order() -> Measured:
    """On one fixed batch SGD converges to the gradient flow at first order in the learning rate.

    Gradient descent with rates 1/128 to 1/1024 and the flow of the same batch, t = 2, one and two layers: the slope of
    the log distance against the log rate. At 1/32 terms of second order still show (measured: slopes up to 1.17).
    """
    slopes, rates = [], [rate / 4 for rate in RATES]
    for depth in (1, 2):
        weights, pairs = small_network(depth)
        flow = sample_flow(weights, pairs, 2.0, rtol=1e-10)
        paths = [train(weights, pairs, lr=lr, steps=round(2 / lr), records=2) for lr in rates]
        slopes.append(order_of_convergence(rates, [float(relative_distance(path, flow)[1][-1]) for path in paths]))
    return Measured(max(abs(slope - 1) for slope in slopes), 0.1)


@claim("sgd-imbalance-step", "not in the paper (theory.md 5g)", "relative error of the change of C")
def sgd_imbalance_step() -> Measured:
    """One SGD step of rate lr changes C = W1 W1^T - W2^T W2 by exactly lr^2 (G1 G1^T - G2^T G2).

    G1, G2 are the layers' gradients on that batch; what is of first order cancels batch by batch, for the identity
    behind B.5 holds for every batch. One step with lr = 0.1; round-off of C itself, over its small change, is the
    bound.
    """
    weights, pairs = small_network(depth=2)
    g1, g2 = Objective().gradient(weights, pairs)
    lr = 0.1
    path = train(weights, pairs, lr=lr, steps=1, records=2)
    before, after = imbalance(*path.weights)
    return Measured(relative_error(after - before, lr**2 * (g1 @ g1.T - g2.T @ g2)), 1e-10)


@claim("sgd-imbalance-drift", "not in the paper (theory.md 5g)", "distance of the order in the learning rate from 1")
def sgd_imbalance_drift() -> Measured:
    """SGD's drift of C over a fixed flow time is of first order in the learning rate, fresh batches or not.

    Each step adds a term in lr^2 and there are t / lr of them. 16 runs of two layers on fresh batches of 32 to
    t = 8, rates 1/32 to 1/256: the slope of the log drift, averaged over runs, against the log rate.
    """
    runs, drifts = 16, []
    for lr in RATES:
        generator = torch.Generator().manual_seed(0)
        task = GaussianTask.block(4, 4, 0.5)
        weights = gaussian_init([4] * 3, generator, (runs,), 0.5)
        path = train(weights, task.stream(32, generator, (runs,)), lr=lr, steps=round(8 / lr), records=2)
        c = imbalance(*path.weights)
        drifts.append(float(torch.linalg.matrix_norm(c[-1] - c[0]).mean()))
    assume(all(late < early for early, late in itertools.pairwise(drifts)), "a smaller rate drifts less")
    return Measured(abs(order_of_convergence(RATES, drifts) - 1), 0.15)


@claim("weight-decay", "not in the paper (theory.md 5g)", "relative error of C(t)")
def weight_decay() -> Measured:
    """With weight decay w the imbalance shrinks as C(t) = exp(-2 w t) C(0): decay balances the layers.

    Two and three layers along the flow of one batch, w = 0.2, up to t = 5, where a factor of 7 is left. The solver
    errs by 1e-8 per step.
    """
    w, times, errors = 0.2, torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), []
    for depth in (2, 3):
        weights, pairs = small_network(depth)
        path = sample_flow(weights, pairs, times, weight_decay=w)
        for pair in itertools.pairwise(path.weights):
            c = imbalance(*pair)
            expected = torch.exp(-2 * w * times).view(-1, 1, 1) * c[0]
            errors.append(max(relative_error(got, want) for got, want in zip(c, expected, strict=True)))
    return Measured(max(errors), 1e-6)
