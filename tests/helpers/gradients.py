"""Gradients by automatic differentiation, to hold the closed forms against."""

import torch


def by_autograd(objective, weights, pairs, biases=()):
    parameters = [p.detach().clone().requires_grad_() for p in (*weights, *biases)]
    value = objective.value(tuple(parameters[: len(weights)]), pairs, tuple(parameters[len(weights) :]))
    return torch.autograd.grad(value.sum(), parameters)


def curvature_by_autograd(objective, weights, pairs, biases, direction):
    def value(*parameters):
        return objective.value(parameters[: len(weights)], pairs, parameters[len(weights) :]).sum()

    parameters = tuple(p.detach().clone() for p in (*weights, *biases))
    return torch.autograd.functional.hvp(value, parameters, tuple(direction))[1]


def assert_as_one(got, expected, tolerance):
    """Compare lists of tensors up to a share of the largest entry of all: gradients of biases may be round-off."""
    size = max(float(slope.abs().max()) for slope in expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size)
    return size
