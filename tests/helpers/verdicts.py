"""Dimensions to judge."""

import torch

from dyncollapse import Dimensions


def dimensions(values, ratios):
    values, ratios = torch.tensor(values, dtype=torch.float64), torch.tensor(ratios, dtype=torch.float64)
    return Dimensions(values, torch.ones_like(values), ratios, ratios)
