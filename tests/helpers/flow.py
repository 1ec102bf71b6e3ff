"""Starts of flows, and how far they went."""

import torch
from helpers.reference import random_covariance

from dyncollapse import GaussianTask, gaussian_init


def draw(generator, depth=2, views="one-sided", runs=(), scale=0.5, n=10):
    weights = gaussian_init([4] * (depth + 1), generator, runs, scale)
    return weights, GaussianTask.block(4, 2, 0.7, views=views).sample(n, generator, runs)


def packed(parameters):
    """All entries as the vector that solvers see."""
    return torch.cat([p.flatten() for p in parameters]).numpy()


def moved(path):
    return float((path.product[-1] - path.product[0]).norm() / path.product[0].norm())


def population_problem(generator, depth=2, views="one-sided", runs=()):
    """Rectangular layers and covariances that do not commute."""
    task = GaussianTask(random_covariance(generator, 4), random_covariance(generator, 4) / 2, views)
    return gaussian_init([4, 3, 5][: depth + 1], generator, runs, 0.5), task


def stop_after(share):
    def progress(t, end):
        if t > share * end:
            raise KeyboardInterrupt

    return progress
