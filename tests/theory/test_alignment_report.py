import pytest
import torch
from helpers.alignment import layer, signs
from helpers.reference import EPS, rotation

from dyncollapse import alignment_report, block_alignment


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
