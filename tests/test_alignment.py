import itertools
import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import EPS, normal, rotation
from scipy.interpolate import CubicSpline

from dyncollapse import (
    GaussianTask,
    Objective,
    alignment_bound,
    alignment_matrix,
    alignment_report,
    balanced_init,
    block_alignment,
    contrastive_covariance,
    frozen_flow,
    gaussian_init,
    imbalance,
    imbalance_drift,
    infonce_weights,
    isotropic_rest_layers,
    mode_flow,
    population_flow,
    rest_singular_values,
    sample_flow,
    singular_values,
    train,
)

VIEWS = ("one-sided", "two-sided")


def moved(path):
    return float((path.product[-1] - path.product[0]).norm() / path.product[0].norm())


def layer(left, values, right):
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def signs(generator, k):
    return torch.randint(0, 2, (k,), generator=generator).double() * 2 - 1


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
def test_alignment_of_a_shared_frame_is_its_permutation(order, generator):
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    w1 = layer(u1, [4.0, 3.0, 2.0, 1.0], v1)
    w2 = layer(u2, [2.0, 1.0, 0.5, 0.1], u1[:, order] * signs(generator, 4))
    expected = torch.eye(4, dtype=torch.float64)[order]
    # Singular vectors move by eps over the relative gap, 0.1 or more here.
    torch.testing.assert_close(alignment_matrix(w1, w2).abs(), expected, rtol=0, atol=1e3 * EPS)


@pytest.mark.parametrize("shapes", [((4, 4), (4, 4)), ((3, 5), (4, 3)), ((5, 3), (2, 5))])
def test_alignment_is_made_of_singular_vectors(shapes, generator):
    w1, w2 = (normal(generator, 2, *shape) for shape in shapes)
    a = alignment_matrix(w1, w2)
    for run in range(2):
        # Eigenvectors of the Gram matrices are singular vectors, up to sign and in rising order.
        u1 = torch.linalg.eigh(w1[run] @ w1[run].T).eigenvectors.flip(-1)[:, : a.shape[-1]]
        v2 = torch.linalg.eigh(w2[run].T @ w2[run]).eigenvectors.flip(-1)[:, : a.shape[-2]]
        torch.testing.assert_close(a[run].abs(), (v2.T @ u1).abs(), rtol=0, atol=1e-10)


def test_alignment_is_orthogonal_between_square_layers(generator):
    a = alignment_matrix(normal(generator, 3, 4, 4), normal(generator, 3, 4, 4))
    torch.testing.assert_close(a @ a.mT, torch.eye(4, dtype=torch.float64).expand(3, -1, -1), rtol=0, atol=100 * EPS)


def test_layers_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\) are not adjacent; w1's outputs must be w2's inputs"):
        alignment_matrix(torch.zeros(3, 4), torch.zeros(2, 4))


def test_block_alignment_of_distinct_values_is_the_mean_squared_diagonal(generator):
    u1, v1, u2, v2 = (rotation(generator, 4) for _ in range(4))
    w1, w2 = layer(u1, [4.0, 3.0, 2.0, 1.0], v1), layer(u2, [2.0, 1.5, 1.0, 0.5], v2)
    expected = float((v2.T @ u1).diagonal().square().mean())
    assert block_alignment(w1, w2) == pytest.approx(expected, abs=1e3 * EPS)
    assert 0 < expected < 1


@pytest.mark.parametrize(
    ("values1", "values2"),
    [([3.0, 1.0, 1.0, 0.5], [2.0, 1.0, 0.7, 0.2]), ([3.0, 2.0, 1.0, 0.5], [2.0, 1.0, 1.0, 0.2])],
)
def test_block_alignment_is_blind_inside_a_block_only(values1, values2, generator):
    # One layer's degeneracy suffices: indices 1 and 2 carry no meaning of their own.
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    w1, turn = layer(u1, values1, v1), torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    inside, outside = u1.clone(), u1.clone()
    inside[:, 1:3], outside[:, 0:2] = u1[:, 1:3] @ turn, u1[:, 0:2] @ turn
    assert block_alignment(w1, layer(u2, values2, inside)) == pytest.approx(1, abs=1e3 * EPS)
    assert block_alignment(w1, layer(u2, values2, outside)) < 1 - 1e-3


def test_opposite_order_is_no_alignment(generator):
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    w1, w2 = layer(u1, [4.0, 3.0, 2.0, 1.0], v1), layer(u2, [4.0, 3.0, 2.0, 1.0], u1.flip(-1))
    assert block_alignment(w1, w2) == pytest.approx(0, abs=1e3 * EPS)


def test_gap_says_what_counts_as_degenerate(generator):
    u1, v1, u2, turn = rotation(generator, 2), rotation(generator, 2), rotation(generator, 2), rotation(generator, 2)
    w1, w2 = layer(u1, [1.0, 0.995], v1), layer(u2, [1.0, 0.5], u1 @ turn)
    assert block_alignment(w1, w2, gap=1e-2) == pytest.approx(1, abs=1e3 * EPS)
    expected = float(turn.diagonal().square().mean())
    assert block_alignment(w1, w2, gap=1e-3) == pytest.approx(expected, abs=1e-11)
    assert expected < 1 - 1e-4


@pytest.mark.parametrize("widths", [[4, 4, 4], [5, 3, 4], [3, 5, 4]])
def test_balanced_layers_are_aligned(widths, generator):
    w1, w2 = balanced_init(widths, generator, scale=1.0)
    assert block_alignment(w1, w2) == pytest.approx(1, abs=1e-12)


def test_imbalance_is_its_definition(generator):
    w1, w2 = normal(generator, 2, 3, 4), normal(generator, 2, 5, 3)
    for run in range(2):
        grams = [sum(torch.outer(c, c) for c in columns) for columns in (w1[run].T, w2[run])]
        torch.testing.assert_close(imbalance(w1, w2)[run], grams[0] - grams[1], rtol=1e-12, atol=1e-13)


def test_imbalance_turns_with_the_hidden_layer_and_with_nothing_else(generator):
    w1, w2, q = normal(generator, 3, 4), normal(generator, 5, 3), rotation(generator, 3)
    c, a, b = imbalance(w1, w2), rotation(generator, 4), rotation(generator, 5)
    torch.testing.assert_close(imbalance(q @ w1 @ a, b @ w2 @ q.T), q @ c @ q.T, rtol=1e-12, atol=1e-12)


def test_drift_is_relative_to_the_largest_gram_matrices():
    eye = torch.eye(4, dtype=torch.float64)
    w1, w2 = torch.stack([eye, 2 * eye]), torch.stack([eye, eye])
    # C goes from 0 to 3 I, |3 I| = 6; Gram norms grow to |4 I| + |I| = 10.
    assert imbalance_drift((w1, w2)) == pytest.approx(0.6)
    assert imbalance_drift((7 * w1, 7 * w2)) == pytest.approx(0.6)


def test_drift_reports_the_worst_run_and_the_worst_pair():
    still = torch.eye(2, dtype=torch.float64).expand(3, 2, 2, 2)
    moving = still.clone()
    moving[2, 1] *= 2
    assert imbalance_drift((still, still)) == 0
    # The moving run goes from C = 0 to 3 I at Gram norms 4 and 1, the other stays.
    assert imbalance_drift((moving, still)) == pytest.approx(0.6)
    assert imbalance_drift((still, still, moving)) == pytest.approx(0.6)


def test_drift_of_one_layer_and_of_nothing():
    zero = torch.zeros(3, 2, 2, dtype=torch.float64)
    assert imbalance_drift((zero,)) is None
    assert imbalance_drift((zero, zero)) == 0


def test_same_rotation_of_a_shared_frame_keeps_alignment(generator):
    w1, w2, q = normal(generator, 4, 4), normal(generator, 4, 4), reference.rotation(generator, 4)
    torch.testing.assert_close(
        alignment_matrix(q @ w1, w2 @ q.T).abs(), alignment_matrix(w1, w2).abs(), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("depth", [2, 3])
def test_sgd_does_not_conserve_the_imbalance(depth, generator):
    weights, task = gaussian_init([4] * (depth + 1), generator, scale=0.5), GaussianTask.block(4, 2, 0.7)
    stream = task.stream(8, generator)
    assert train(weights, stream, lr=0.1, steps=200).imbalance_drift > 1e-3
    # A step changes C by lr^2, a fixed time holds 1/lr steps: the drift is of first order in lr on a fixed batch.
    pairs = task.sample(8, generator)
    fast, slow = (train(weights, pairs, lr=lr, steps=round(2 / lr)).imbalance_drift for lr in (2**-4, 2**-8))
    assert 8 < fast / slow < 32
    assert sample_flow(weights, pairs, [0.0, 2.0]).imbalance_drift < slow / 100


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_flow_conserves_the_imbalance(depth, views, generator):
    weights, task = gaussian_init([4] * (depth + 1), generator, scale=0.6), GaussianTask.block(4, 2, 0.7, views=views)
    times = [0.0, 1.0, 2.0]
    for path in (sample_flow(weights, task.sample(10, generator), times), population_flow(weights, task, times)):
        assert moved(path) > 0.1
        # Conserved exactly; the solver's rtol of 1e-8 per step leaves two digits of room.
        assert path.imbalance_drift < 1e-6
    assert float(imbalance(weights[0], weights[1]).norm()) > 0.1


@pytest.mark.parametrize("loss", ["infonce", "dot"])
def test_weight_decay_shrinks_the_imbalance_exponentially(loss, generator):
    weights, pairs = gaussian_init([4] * 4, generator, scale=0.5), GaussianTask.block(4, 2, 0.7).sample(10, generator)
    decay, times = 0.2, torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    objective = Objective(loss, 1.0 if loss == "dot" else None)
    path = sample_flow(weights, pairs, times, objective=objective, weight_decay=decay)
    for w1, w2 in zip(path.weights[:-1], path.weights[1:], strict=True):
        c = imbalance(w1, w2)
        expected = torch.exp(-2 * decay * times).view(-1, 1, 1) * c[0]
        torch.testing.assert_close(c, expected, rtol=0, atol=1e-6 * float(c[0].norm()))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_theorem_3_is_exact_from_an_aligned_start_under_a_frozen_force(depth, generator):
    weights = balanced_init([4] * (depth + 1), generator, scale=0.8)
    frame = torch.linalg.svd(weights[0]).Vh.T
    x, times = torch.tensor([0.5, 0.2, -0.1, -0.6], dtype=torch.float64), [0.0, 0.5, 1.0]
    full = frozen_flow(weights, frame * x @ frame.T, times, rtol=1e-10)
    modes = mode_flow([torch.linalg.svdvals(w) for w in weights], x, times, rtol=1e-10)
    assert moved(full) > 0.1
    for layer, values in zip(full.weights, modes.weights, strict=True):
        expected = values.diagonal(dim1=-2, dim2=-1).sort(descending=True).values
        torch.testing.assert_close(torch.linalg.svdvals(layer), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("depth", [2, 3])
def test_theorem_3_is_exact_along_a_sample_flow_from_a_balanced_start(depth, views, generator):
    weights = balanced_init([3] * (depth + 1), generator, scale=0.9, rate=0.5)
    pairs = GaussianTask.block(3, 1, 0.7, views=views).sample(12, generator)
    times = torch.linspace(0, 2, 401, dtype=torch.float64)
    full = sample_flow(weights, pairs, times, rtol=1e-10)
    anchor, positive = (x.expand(len(times), -1, -1) for x in (pairs.anchor, pairs.positive))
    negatives = None if views == "one-sided" else positive
    z, z_pos = anchor @ full.product.mT, positive @ full.product.mT
    alpha = infonce_weights(z, z_pos, None if views == "one-sided" else z_pos)
    force = contrastive_covariance(anchor, positive, alpha, negatives).force
    vh = torch.linalg.svd(full.weights[0]).Vh
    x = CubicSpline(times.numpy(), ((vh @ force) * vh).sum(-1).numpy())
    values = [torch.linalg.svdvals(w) for w in full.weights]
    # Vectors are followed by rank, so no two modes may cross; the spline errs by (2 / 400)^4, below 1e-8.
    assert float((values[0][:, :-1] - values[0][:, 1:]).min()) > 1e-2
    modes = mode_flow([v[0] for v in values], lambda t: torch.from_numpy(x(t)), [0.0, 1.0, 2.0], rtol=1e-10)
    assert moved(full) > 0.1
    for expected, got in zip(values, modes.weights, strict=True):
        at = expected[[0, 200, 400]]
        torch.testing.assert_close(got.diagonal(dim1=-2, dim2=-1), at, rtol=0, atol=1e-6)


def test_weights_that_are_not_numbers_certify_nothing():
    ones = torch.ones(2, 2, 2, dtype=torch.float64)
    assert math.isnan(imbalance_drift((ones, ones * float("nan"))))
    assert imbalance_drift((0 * ones, 0 * ones)) == 0


DISTINCT = torch.tensor([4.0, 1.6, 0.6, 0.25], dtype=torch.float64)


def distinct_task(views="one-sided"):
    return GaussianTask(torch.diag(DISTINCT), torch.diag(0.6 * DISTINCT), views)


@pytest.mark.parametrize("lam", [0.8, -0.8])
@pytest.mark.parametrize("depth", [2, 3])
def test_layers_with_c_a_multiple_of_the_identity_stay_aligned(depth, lam, generator):
    weights = balanced_init([4] * (depth + 1), generator, scale=0.6, imbalance=lam)
    task, times = distinct_task(), [0.0, 0.3, 1.0, 3.0]
    for path in (population_flow(weights, task, times), sample_flow(weights, task.sample(12, generator), times)):
        assert moved(path) > 0.5
        for w1, w2 in itertools.pairwise(path.weights):
            for i in range(len(times)):
                # The solver's relative error of 1e-8 turns a frame by 1e-6 at most; alignment feels the square.
                assert block_alignment(w1[i], w2[i]) == pytest.approx(1, abs=1e-12)
    # The control: from a start of no particular C the same flow does not keep what alignment there is.
    path = population_flow(gaussian_init([4] * (depth + 1), generator, scale=0.6), task, times)
    assert all(block_alignment(path.weights[0][i], path.weights[1][i]) < 0.99 for i in range(len(times)))


def planted(generator, widths, noise):
    """Two layers that share a frame and the singular values 4, 3, ... up to noise: C is as small as the noise."""
    d, h, m = widths
    q = [rotation(generator, width) for width in widths]
    k = min(widths)
    s = torch.arange(k, 0, -1, dtype=torch.float64)
    w1, w2 = q[1][:, :k] * s @ q[0][:, :k].T, q[2][:, :k] * s @ q[1][:, :k].T
    return w1 + noise * normal(generator, h, d), w2 + noise * normal(generator, m, h)


@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=3),
    st.floats(-6, 1),
    st.floats(0, 10),
    st.integers(0, 2**31),
)
def test_bound_holds_for_any_layers(widths, exponent, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    w1, w2 = planted(generator, widths, 10**exponent)
    if min(widths[0], widths[2]) >= widths[1]:  # then C can be shifted by a multiple of the identity
        u1, s1, v1h = torch.linalg.svd(w1, full_matrices=False)
        w1 = u1 * torch.sqrt(s1.square() + lam) @ v1h
    report = alignment_report(w1, w2)
    # Round-off: eps of the squared sizes over the separation, which is C's spread over the bound.
    spread = float(report.imbalance_spectrum[0] - report.imbalance_spectrum[-1]) / 2
    size = float(w1.norm() ** 2 + w2.norm() ** 2)
    slack = 100 * EPS * size / max(spread, EPS * size) * report.bounds + 100 * EPS
    assert (report.sines <= report.bounds + slack).all()
    assert (report.sines <= 1 + 1e3 * EPS).all()
    assert 0 <= report.alignment <= 1 + 1e3 * EPS
    assert sorted(report.permutation) == list(range(widths[1]))


@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.floats(-2, 2), st.integers(0, 2**31))
def test_eigenvalues_of_both_gram_matrices_follow_from_p_and_c(widths, exponent, seed):
    # The lemma under the bound: |h_k - q_k| <= gamma / 2 for W1 W1^T and W2^T W2, at any widths.
    generator, (d, h, m) = torch.Generator().manual_seed(seed), widths
    w1, w2 = normal(generator, h, d), normal(generator, m, h) * 10**exponent
    gamma = torch.linalg.matrix_norm(imbalance(w1, w2), ord=2)
    p = torch.zeros(h, dtype=torch.float64)
    values = singular_values(w2 @ w1)[:h]
    p[: len(values)] = values
    q = torch.sqrt(p.square() + gamma**2 / 4)
    for gram in (w1 @ w1.T, w2.T @ w2):
        eigenvalues = torch.linalg.eigvalsh(gram).flip(-1)
        assert ((eigenvalues - q).abs() <= gamma / 2 + 100 * EPS * (gamma + q[0])).all()


@pytest.mark.parametrize("widths", [(4, 4, 4), (5, 4, 6), (3, 5, 4)])
def test_bound_shrinks_with_the_imbalance_and_says_something(widths, generator):
    w1, w2 = planted(generator, widths, 1e-3)
    report = alignment_report(w1, w2)
    assert report.certified
    assert report.pattern == "aligned"
    assert float(report.bounds.max()) < 0.5
    assert (report.sines <= report.bounds).all()
    # Not too generous either: at most 12 times the angle in 300 draws, 4 in the median.
    assert float(report.sines.max()) > float(report.bounds.max()) / 30


@pytest.mark.parametrize(("scale", "certified"), [(0.1, True), (0.5, False)])
def test_bound_holds_along_the_flow_from_a_gaussian_start(scale, certified, generator):
    path = population_flow(gaussian_init([4] * 3, generator, scale=scale), distinct_task(), [0.0, 10.0, 40.0, 160.0])
    reports = [alignment_report(w1, w2) for w1, w2 in zip(*path.weights, strict=True)]
    assert all((report.sines <= report.bounds).all() for report in reports)
    assert not reports[0].certified
    assert reports[-1].certified == certified
    if certified:
        assert float(reports[-1].bounds.max()) < 1
        assert float(reports[-1].bounds.min()) < 0.5
        assert reports[-1].pattern == "aligned"
    # P's last values and C at the start predict what the last layers' angles can be.
    c = torch.linalg.eigvalsh(imbalance(*(w[0] for w in path.weights)))
    predicted = alignment_bound(path.singular_values[-1], c, reports[-1].blocks)
    torch.testing.assert_close(predicted, reports[-1].bounds, rtol=1e-5, atol=0)


def test_bound_is_davis_kahan_on_numbers_known_in_advance():
    p, c = torch.tensor([3.0, 2.0], dtype=torch.float64), torch.tensor([0.6, -0.2], dtype=torch.float64)
    q = [math.sqrt(v**2 + 0.3**2) for v in (3, 2)]
    expected = 0.4 / (q[0] - q[1] - 0.4)
    torch.testing.assert_close(alignment_bound(p, c), torch.full((2,), expected, dtype=torch.float64))
    # The other way round the imbalance is as large and its spread too.
    torch.testing.assert_close(alignment_bound(p, -c), alignment_bound(p, c))
    stacked = alignment_bound(torch.stack([p, 2 * p]), torch.stack([c, 2 * c]))
    torch.testing.assert_close(stacked, torch.full((2, 2), expected, dtype=torch.float64))


def test_bound_is_zero_or_infinite_in_the_limits():
    p, none = torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for c in (none, none + 5.0, none - 5.0):
        # C = lambda I moves no frame; two equal values have none.
        assert alignment_bound(p, c).tolist() == [0, math.inf, math.inf]
        assert alignment_bound(p, c, [[0], [1, 2]]).tolist() == [0, 0]
    tilted = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    assert alignment_bound(p, tilted)[1:].isinf().all()
    assert alignment_bound(p, 20 * tilted).isinf().all()
    assert alignment_bound(0 * p, none).isinf().all()
    assert alignment_bound(p, tilted, [[0, 1, 2]]).tolist() == [0]
    # A wider hidden layer: two missing values are zeros of P, one block.
    wide = alignment_bound(p[:1], torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64), [[0], [1, 2]])
    torch.testing.assert_close(wide, torch.full((2,), 0.1 / (math.sqrt(9 + 0.05**2 * 4 / 4) - 0.05 - 0.1)).double())
    for blocks in ([[0], [2, 1]], [[0], [1]], [[0], [], [1, 2]]):
        with pytest.raises(ValueError, match=r"blocks are .* they must cut 0, ..., 2 into runs, in order"):
            alignment_bound(p, none, blocks)


@pytest.mark.parametrize(
    ("order", "pattern"),
    [([0, 1, 2, 3], "aligned"), ([3, 2, 1, 0], "anti-aligned"), ([1, 0, 3, 2], "permuted"), ([2, 0, 3, 1], "permuted")],
)
def test_report_names_the_pattern(order, pattern, generator):
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    w1 = layer(u1, [4.0, 3.0, 2.0, 1.0], v1)
    w2 = layer(u2, [2.0, 1.0, 0.5, 0.1], u1[:, order] * signs(generator, 4))
    report = alignment_report(w1, w2)
    assert report.pattern == pattern
    # Row i of A is W2's vector i, which is W1's vector order[i]: the permutation is the inverse.
    assert [order[row] for row in report.permutation] == [0, 1, 2, 3]
    assert report.permuted_alignment == pytest.approx(1, abs=1e3 * EPS)
    assert report.blocks == [[0], [1], [2], [3]]
    assert report.alignment == block_alignment(w1, w2)
    moved_rows = torch.tensor([float(k != row) for k, row in enumerate(report.permutation)], dtype=torch.float64)
    torch.testing.assert_close(report.sines, moved_rows, rtol=0, atol=1e3 * EPS)


def test_report_calls_a_generic_pair_mixed_and_one_block_degenerate(generator):
    turn = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    values = [4.0, 3.0, 2.0, 1.0]
    mixed = alignment_report(layer(u1, values, v1), layer(u2, values, u1 @ turn))
    assert mixed.pattern == "mixed"
    assert not mixed.certified
    one = alignment_report(layer(u1, [1.0, 0.999, 0.998, 0.997], v1), layer(u2, values, u1 @ turn))
    assert (one.pattern, one.blocks) == ("degenerate", [[0, 1, 2, 3]])
    assert (one.sines.tolist(), one.bounds.tolist()) == ([0], [0])


@pytest.mark.parametrize("reverse", [False, True])
def test_report_is_blind_to_signs_and_to_rotations_inside_blocks(reverse, generator):
    u1, v1, u2, v2 = (rotation(generator, 4) for _ in range(4))
    values1 = [3.0, 2.0, 2.0, 1.0]
    turn = torch.block_diag(torch.eye(1), rotation(generator, 2), torch.eye(1)).double() * signs(generator, 4)
    base = u1.flip(-1) if reverse else u1
    w1, values2 = layer(u1, values1, v1), [3.0, 2.5, 1.5, 1.0]
    reports = [alignment_report(w1, layer(u2, values2, right)) for right in (base, base @ turn)]
    for report in reports:
        assert report.blocks == [[0], [1, 2], [3]]
        assert report.pattern == ("anti-aligned" if reverse else "aligned")
        assert report.permuted_alignment == pytest.approx(1, abs=1e3 * EPS)
        expected = torch.tensor([1.0, 0.0, 1.0] if reverse else [0.0, 0.0, 0.0], dtype=torch.float64)
        torch.testing.assert_close(report.sines, expected, rtol=0, atol=1e3 * EPS)
    # A rotated pair of frames, the network's own symmetry, changes nothing either.
    w2, q = layer(u2, values2, v2), rotation(generator, 4)
    here, there = alignment_report(w1, w2), alignment_report(q @ w1, w2 @ q.T)
    for name in ("imbalance_spectrum", "product_gaps", "sines"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=0, atol=1e-12)
    assert (here.pattern, here.permutation) == (there.pattern, there.permutation)
    assert here.permuted_alignment == pytest.approx(there.permuted_alignment, abs=1e-12)


def test_blocks_of_two_that_change_places_are_one_permutation(generator):
    u1, v1, u2 = (rotation(generator, 4) for _ in range(3))
    turn = torch.block_diag(rotation(generator, 2), rotation(generator, 2))
    w1, w2 = layer(u1, [2.0, 2.0, 1.0, 1.0], v1), layer(u2, [3.0, 3.0, 1.0, 1.0], (u1 @ turn)[:, [2, 3, 0, 1]])
    report = alignment_report(w1, w2)
    assert report.blocks == [[0, 1], [2, 3]]
    assert (report.pattern, report.permutation) == ("anti-aligned", [2, 3, 0, 1])
    assert report.alignment == pytest.approx(0, abs=1e3 * EPS)
    assert report.permuted_alignment == pytest.approx(1, abs=1e3 * EPS)


def test_report_of_ensembles_is_refused_in_favour_of_runs():
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 3\) and \(2, 3, 3\); report on one run"):
        alignment_report(torch.ones(2, 3, 3), torch.ones(2, 3, 3))


def test_isotropic_data_align_layers_in_opposite_order(generator):
    weights, task = gaussian_init([4] * 3, generator, scale=0.3), GaussianTask.block(4, 4, 0.6, data_var=1.0)
    # Distances to rest fall like exp(-t); what remains at the end is the solver's error, 1e-11 per unit of weight.
    w1, w2 = population_flow(weights, task, 1000.0, rtol=1e-11).final()
    anti = torch.eye(4, dtype=torch.float64).flip(0)
    torch.testing.assert_close(alignment_matrix(w1, w2).abs(), anti, rtol=0, atol=1e-8)
    c = torch.linalg.eigvalsh(imbalance(*weights)).flip(-1)
    s1, s2 = isotropic_rest_layers(c, float(rest_singular_values(task)[0]))
    torch.testing.assert_close(singular_values(w1), s1, rtol=0, atol=1e-8)
    torch.testing.assert_close(singular_values(w2), s2.flip(-1), rtol=0, atol=1e-8)
    report = alignment_report(w1, w2)
    assert (report.pattern, report.permutation) == ("anti-aligned", [3, 2, 1, 0])
    assert not report.certified
    assert report.bounds.isinf().all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_rest_layers_have_their_product_and_their_imbalance(spectrum, p):
    c = torch.tensor(spectrum, dtype=torch.float64)
    s1, s2 = isotropic_rest_layers(c, p)
    torch.testing.assert_close(s1 * s2, torch.full_like(c, p), rtol=10 * EPS, atol=0)
    torch.testing.assert_close(s1.square() - s2.square(), c, rtol=10 * EPS, atol=10 * EPS * p)
    assert (s1 > 0).all()
    assert (s2 > 0).all()


def test_rest_layers_at_the_edges():
    c = torch.tensor([4.0, 0.0, -9.0], dtype=torch.float64)
    s1, s2 = isotropic_rest_layers(c, 0.0)
    assert (s1.tolist(), s2.tolist()) == ([2, 0, 0], [0, 0, 3])
    # 1e8 against 1e-8: the smaller value keeps all its digits.
    s1, s2 = isotropic_rest_layers(torch.tensor([1e8], dtype=torch.float64), 1e-8)
    assert float(s2) == pytest.approx(1e-12, rel=10 * EPS)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="it is a singular value, finite and at least 0"):
            isotropic_rest_layers(c, value)
