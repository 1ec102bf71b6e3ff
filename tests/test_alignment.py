import math

import pytest
import reference
import torch
from reference import EPS, normal, rotation
from scipy.interpolate import CubicSpline

from dyncollapse import (
    GaussianTask,
    Objective,
    alignment_matrix,
    balanced_init,
    block_alignment,
    contrastive_covariance,
    frozen_flow,
    gaussian_init,
    imbalance,
    imbalance_drift,
    infonce_weights,
    mode_flow,
    population_flow,
    sample_flow,
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
