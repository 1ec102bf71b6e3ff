"""Embeddings to diagnose, and the ranks that are reported of them."""

import torch
from helpers.reference import normal, rotation

RANKS = ("rankme", "effective_rank", "participation_ratio", "stable_rank")


def planted(generator, n, spectrum, mean=0.0):
    """Rows whose covariance (1/n) is exactly the one with these eigenvalues, in a random frame, around a mean."""
    d = len(spectrum)
    rows = normal(generator, n, d)
    rows = rows - rows.mean(0)
    white = torch.linalg.qr(rows).Q * n**0.5
    return white * torch.as_tensor(spectrum, dtype=torch.float64).sqrt() @ rotation(generator, d) + mean
