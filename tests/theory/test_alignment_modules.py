"""Alignment of two linear layers of a torch module, by name."""

import itertools

import pytest
import torch
from helpers.reference import rotation
from torch import nn

from dyncollapse import alignment_report, module_alignment


def projector(*widths):
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("widths", [(4, 4, 4), (5, 3, 7), (2, 6, 3)])
def test_is_the_report_of_the_two_weights(widths):
    torch.manual_seed(0)
    module = nn.ModuleDict({"head": projector(*widths)})
    found = module_alignment(module, "head.0", "head.2")
    expected = alignment_report(*(module["head"][i].weight.detach().double() for i in (0, 2)))
    assert found.blocks == expected.blocks
    assert found.permutation == expected.permutation
    torch.testing.assert_close(found.sines, expected.sines, rtol=0, atol=0)
    torch.testing.assert_close(found.bounds, expected.bounds, rtol=0, atol=0)


def test_finds_planted_alignment_in_single_precision(generator):
    # W1 = U S1 V^T and W2 = O S2 U^T share the hidden frame U in the same order.
    u, v, o = (rotation(generator, k) for k in (6, 8, 4))
    module = projector(8, 6, 4)
    with torch.no_grad():
        module[0].weight.copy_(u * torch.tensor([6.0, 5, 4, 3, 2, 1]) @ v[:6])
        module[2].weight.copy_(o * torch.tensor([4.0, 3, 2, 1]) @ u.T[:4])
    found = module_alignment(module, "0", "2")
    assert found.pattern == "aligned"
    assert found.alignment == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("names", [("1", "2"), ("0", "nowhere"), ("", "2")])
def test_a_name_that_is_no_linear_layer_is_told_what_there_is(names):
    with pytest.raises(ValueError, match=r"is not a linear layer of this Sequential; its linear layers: '0', '2'$"):
        module_alignment(projector(3, 3, 3), *names)


def test_layers_that_do_not_fit_are_refused():
    module = projector(3, 4, 5, 6)
    with pytest.raises(ValueError, match="not adjacent"):
        module_alignment(module, "0", "4")
    with pytest.raises(ValueError, match="its linear layers: none"):
        module_alignment(nn.ReLU(), "0", "1")
