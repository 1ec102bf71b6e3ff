"""What claims about samples share: tasks without special axes, means over batches, SGD at rest, standard errors."""

import torch
from torch import Tensor

from dyncollapse.dynamics.training import train
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import balanced_init
from dyncollapse.model.objective import Objective, infonce_force
from dyncollapse.theory.equilibria import rest_singular_values
from dyncollapse.theory.population import negatives_needed

# Statistical bounds are this many standard errors wide: a correct statement fails once in two million draws.
SIGMAS = 5


def random_task(dim: int, views: str, generator: torch.Generator) -> GaussianTask:
    """Data and augmentation covariance of order 1 without common eigenvectors, both of full rank."""
    roots = (torch.randn(dim, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    data_cov, aug_cov = (0.1 * torch.eye(dim, dtype=torch.float64) + root @ root.T / dim for root in roots)
    return GaussianTask(data_cov, aug_cov, views)


def force_of_batches(task: GaussianTask, product: Tensor, n: int, batches: int, seed: int = 0) -> Tensor:
    """X of Lemma 2 on fresh batches of n pairs: (batches, d, d)."""
    return infonce_force(product, task.sample(n, torch.Generator().manual_seed(seed), (batches,)))


def largest_deviation(samples: Tensor, expected: Tensor, bias: float = 0.0) -> float:
    """Largest distance of the mean of samples (n, ...) from what is expected, in standard errors of each entry.

    `bias` is a known shift of the mean, up to which SIGMAS standard errors are widened.
    """
    error = samples.std(0) / len(samples) ** 0.5 + bias / SIGMAS
    return float(((samples.mean(0) - expected).abs() / error).max())


def resting_square(
    task: GaussianTask, objective: Objective, time: float, lr: float, batch: int = 128
) -> tuple[float, float]:
    """SGD's p^2 over the closed form's, less 1, over the second half of the time; and the band for finite batches.

    16 runs start at 0.7 of the rest value. The band: `negatives_needed` / N, up to which finite batches shift the
    rest point (measured in tests/theory/test_population_views.py), and SIGMAS standard errors over the runs.
    """
    runs, generator = 16, torch.Generator().manual_seed(0)
    rest = rest_singular_values(task, objective.loss, objective.temperature)
    start = balanced_init([task.dim] * 2, generator, (runs,), 0.7 * float(rest[0]), 0.0)
    stream = task.stream(batch, generator, (runs,))
    path = train(start, stream, lr=lr, steps=round(time / lr), objective=objective, records=100)
    squares = path.product.square().sum((-2, -1)) / task.dim / float(rest[0]) ** 2
    deviation = squares[path.time > time / 2].mean(0) - 1
    needed = float(negatives_needed(torch.diag(rest), task, objective))
    return float(deviation.mean()), needed / batch + SIGMAS * float(deviation.std()) / runs**0.5
