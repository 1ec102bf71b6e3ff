"""Shared by claims about samples: tasks without special axes, means over batches, SGD at rest, standard errors."""

from collections.abc import Callable

import torch
from torch import Tensor

from dyncollapse.dynamics.training import train
from dyncollapse.model.forces import infonce_force
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import balanced_init
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.theory.equilibria import rest_singular_values
from dyncollapse.theory.population import negatives_needed

# Width of statistical bounds in standard errors: a correct statement then fails once in two million draws.
SIGMAS = 5
# Numbers of an array over pairs of samples that is quick to go through: 512 kB, which fit the cache of a core.
CACHED = 2**16


def random_task(dim: int, views: str, generator: torch.Generator) -> GaussianTask:
    """Data and augmentation covariance of order 1 without common eigenvectors, both of full rank."""
    roots = (torch.randn(dim, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    data_cov, aug_cov = (0.1 * torch.eye(dim, dtype=torch.float64) + root @ root.T / dim for root in roots)
    return GaussianTask(data_cov, aug_cov, views)


def force_of_batches(task: GaussianTask, product: Tensor, n: int, batches: int, seed: int = 0) -> Tensor:
    """X of Lemma 2 on fresh batches of n pairs: (batches, d, d)."""
    pairs = task.sample(n, torch.Generator().manual_seed(seed), (batches,))
    return over_batches(lambda some: infonce_force(product, some), pairs)


def over_batches(measure: Callable[[Pairs], Tensor], pairs: Pairs) -> Tensor:
    """What `measure` gives for each batch (batches, ...) of pairs (batches, n, d), a few batches at a time."""
    some = max(1, CACHED // pairs.anchor.shape[-2] ** 2)
    parts = zip(pairs.anchor.split(some), pairs.positive.split(some), strict=True)
    return torch.cat([measure(Pairs(anchor, positive, pairs.views)) for anchor, positive in parts])


def largest_deviation(samples: Tensor, expected: Tensor, bias: float = 0.0) -> float:
    """Largest deviation of a mean from its expected value, in standard errors of each entry.

    Args:
        samples: (n, ...): what is averaged over the first axis.
        expected: (...): the expected mean.
        bias: A known shift of the mean, by which SIGMAS standard errors are widened.

    Returns:
        The largest deviation over the entries.
    """
    error = samples.std(0) / len(samples) ** 0.5 + bias / SIGMAS
    return float(((samples.mean(0) - expected).abs() / error).max())


def resting_square(
    task: GaussianTask, objective: Objective, time: float, lr: float, batch: int = 128
) -> tuple[float, float]:
    """Where SGD rests, relative to the closed form, and how far finite batches may shift that.

    16 runs start at 0.7 of the rest value; p^2 is averaged over the second half of the time.

    Args:
        task: Data and augmentation, equal in all directions.
        objective: The loss.
        time: Flow time of the runs.
        lr: Learning rate.
        batch: Batch size N.

    Returns:
        The relative deviation of p^2 from the closed form, and its bound: `negatives_needed` / N, by which finite
        batches shift the rest point at most (measured in tests/theory/test_population_views.py), plus SIGMAS standard
        errors over the runs.
    """
    runs, generator = 16, torch.Generator().manual_seed(0)
    rest = rest_singular_values(task, objective.name, objective.temperature)
    start = balanced_init([task.dim] * 2, generator, (runs,), 0.7 * float(rest[0]), 0.0)
    stream = task.stream(batch, generator, (runs,))
    path = train(start, stream, lr=lr, steps=round(time / lr), objective=objective, records=100)
    squares = path.product.square().sum((-2, -1)) / task.dim / float(rest[0]) ** 2
    deviation = squares[path.time > time / 2].mean(0) - 1
    needed = float(negatives_needed(torch.diag(rest), task, objective))
    return float(deviation.mean()), needed / batch + SIGMAS * float(deviation.std()) / runs**0.5
