"""Layers with a planted frame, and a task whose modes are distinct."""

import torch

from dyncollapse import GaussianTask


def layer(left, values, right):
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def signs(generator, k):
    return torch.randint(0, 2, (k,), generator=generator).double() * 2 - 1


DISTINCT = torch.tensor([4.0, 1.6, 0.6, 0.25], dtype=torch.float64)


def distinct_task(views="one-sided"):
    return GaussianTask(torch.diag(DISTINCT), torch.diag(0.6 * DISTINCT), views)
