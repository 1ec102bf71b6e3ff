"""Tasks with equilibria, and the losses whose equilibria are known."""

import torch

from dyncollapse import GaussianTask

LOSSES = [("infonce", None), ("dot", 0.5), ("spectral", None)]


def task_in(frame, data_vars, aug_vars, views="one-sided"):
    covs = (frame * torch.tensor(v, dtype=torch.float64) @ frame.T for v in (data_vars, aug_vars))
    return GaussianTask(*((c + c.T) / 2 for c in covs), views)


def root_of(gram):
    variances, vectors = torch.linalg.eigh(gram)
    return variances.clamp_min(0).sqrt().unsqueeze(1) * vectors.T
