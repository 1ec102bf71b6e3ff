"""Compile all kernels now and not at their first call: `python -m dyncollapse.dynamics.compile_kernels`.

It takes half a minute to a minute, once on a machine. An image of a container whose files cannot be written later needs
it, for instance.
"""

import torch

from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.forces import mean_force
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.objective import Objective


def compile_kernels() -> None:
    """Call every compiled function once for each type of number that it is for."""
    task = GaussianTask.block(2, 1)
    pairs, weights = task.sample(3, torch.Generator().manual_seed(0), (1,)), 0.1 * torch.ones(1, 2, 2)
    for loss, constant in (("infonce", None), ("dot", 1.0)):
        for kind in (torch.float32, torch.float64):
            mean_force(weights.to(kind), pairs.to(kind), loss, constant)
            train((weights.to(kind),), pairs.to(kind), steps=1, lr=0.1, objective=Objective(loss, constant))
        sample_flow((weights.double(),), pairs, 0.1, objective=Objective(loss, constant), method="CVODE")
    wide = 0.1 * torch.ones(16, 16, dtype=torch.float64)
    population_flow((wide, wide), GaussianTask.block(16, 1), 100.0)  # large and stiff enough for a preconditioner


if __name__ == "__main__":
    compile_kernels()
