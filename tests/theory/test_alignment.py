import pytest
import torch
from helpers import reference
from helpers.alignment import layer, signs
from helpers.reference import EPS, normal, rotation

from dyncollapse import alignment_matrix, balanced_init, block_alignment


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


def test_same_rotation_of_a_shared_frame_keeps_alignment(generator):
    w1, w2, q = normal(generator, 4, 4), normal(generator, 4, 4), reference.rotation(generator, 4)
    torch.testing.assert_close(
        alignment_matrix(q @ w1, w2 @ q.T).abs(), alignment_matrix(w1, w2).abs(), rtol=0, atol=1e-10
    )
