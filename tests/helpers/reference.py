"""The mathematics once more, slow and obvious: loops over samples, sums of outer products, gradients by definition."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

EPS = torch.finfo(torch.float64).eps
VIEWS = ("one-sided", "two-sided")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def log_sum_exp(values):
    largest = max(value.detach() for value in values)
    return largest + torch.log(sum(torch.exp(value - largest) for value in values))


def infonce_logits(z, z_pos, views):
    negatives = z if views == "one-sided" else z_pos
    rows = []
    for i in range(len(z)):
        row = []
        for j in range(len(z)):
            difference = z[i] - (z_pos[i] if j == i else negatives[j])
            row.append(-(difference @ difference) / 2)
        rows.append(row)
    return rows


def infonce(z, z_pos, views):
    rows = infonce_logits(z, z_pos, views)
    return sum(log_sum_exp(row) - row[i] for i, row in enumerate(rows)) / len(z)


def infonce_weights(z, z_pos, views):
    rows = infonce_logits(z, z_pos, views)
    return torch.stack([torch.stack([torch.exp(logit - log_sum_exp(row)) for logit in row]) for row in rows])


def dot_infonce(z, z_pos, views, temperature):
    negatives = z if views == "one-sided" else z_pos
    total = 0.0
    for i in range(len(z)):
        row = [z[i] @ (z_pos[i] if j == i else negatives[j]) / temperature for j in range(len(z))]
        total = total + log_sum_exp(row) - row[i]
    return total / len(z)


def unit(vector):
    length = torch.sqrt(vector @ vector)
    return vector / length if float(length.detach()) > 0 else vector


def ntxent(z, z_pos, temperature):
    total = 0.0
    for first, second in ((z, z_pos), (z_pos, z)):
        for i in range(len(z)):
            row = [unit(first[i]) @ unit(second[j]) / temperature for j in range(len(z))]
            total = total + log_sum_exp(row) - row[i]
    return total / (2 * len(z))


def spectral(z, z_pos, views):
    negatives, n = z if views == "one-sided" else z_pos, len(z)
    attraction = sum(z[i] @ z_pos[i] for i in range(n)) / n
    repulsion = sum((z[i] @ negatives[j]) ** 2 for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return -2 * attraction + repulsion


def covariance_across(z, z_pos, divisor=None):
    mean, mean_pos = sum(z) / len(z), sum(z_pos) / len(z)
    total = sum(torch.outer(a - mean, b - mean_pos) for a, b in zip(z, z_pos, strict=True))
    return total / (len(z) if divisor is None else divisor)


def squared_distance_from_identity(matrix):
    m = len(matrix)
    return sum((matrix[j, k] - (1.0 if j == k else 0.0)) ** 2 for j in range(m) for k in range(m))


def vcreg(z, z_pos, views, invariance=1.0):
    spread = [z] if views == "one-sided" else [z, z_pos]
    pull = sum((a - b) @ (a - b) for a, b in zip(z, z_pos, strict=True)) / len(z)
    held = sum(squared_distance_from_identity(covariance_across(view, view)) for view in spread) / len(spread)
    return held + invariance * pull


def barlow(z, z_pos):
    return squared_distance_from_identity(covariance_across(z, z_pos))


def vicreg(z, z_pos, views, invariance=1.0):
    (n, m), total = z.shape, 0.0
    for j in range(m):
        total = total + invariance * sum((z[i, j] - z_pos[i, j]) ** 2 for i in range(n)) / (n * m)
    for view in (z, z) if views == "one-sided" else (z, z_pos):
        cov = covariance_across(view, view, n - 1)
        for j in range(m):
            total = total + torch.relu(1 - torch.sqrt(cov[j, j] + 1e-4)) / m
            total = total + 0.04 / m * sum(cov[j, k] ** 2 for k in range(m) if k != j)
    return total


def barlow_normalised(z, z_pos):
    m, cov = z.shape[-1], covariance_across(z, z_pos)
    own, other = (torch.sqrt(covariance_across(view, view).diagonal()) for view in (z, z_pos))
    total = 0.0
    for j in range(m):
        for k in range(m):
            correlation = cov[j, k] / (own[j] * other[k])
            total = total + ((1 - correlation) ** 2 if j == k else 0.005 * correlation**2)
    return total


def loss(name, z, z_pos, views, temperature=0.1, invariance=1.0):
    if name == "vcreg":
        return vcreg(z, z_pos, views, invariance)
    if name == "vicreg":
        return vicreg(z, z_pos, views, invariance)
    if name == "barlow":
        return barlow(z, z_pos)
    if name == "barlow-normalised":
        return barlow_normalised(z, z_pos)
    if name == "infonce":
        return infonce(z, z_pos, views)
    if name == "dot":
        return dot_infonce(z, z_pos, views, temperature)
    if name == "ntxent":
        return ntxent(z, z_pos, temperature)
    assert name == "spectral"
    return spectral(z, z_pos, views)


LOSSES = ("infonce", "dot", "ntxent", "spectral", "vcreg", "vicreg", "barlow", "barlow-normalised")
CASES = [(name, views) for name in LOSSES for views in VIEWS if (name, views) != ("ntxent", "one-sided")]
FORCED = ("infonce", "dot", "ntxent", "spectral", "vcreg", "barlow")
FORCED_CASES = [(name, views) for name, views in CASES if name in FORCED]


def contrastive_covariance(x, x_pos, alpha, views):
    negatives, (n, d) = x if views == "one-sided" else x_pos, x.shape
    sigma0, sigma1 = torch.zeros(d, d, dtype=x.dtype), torch.zeros(d, d, dtype=x.dtype)
    for i in range(n):
        for j in range(n):
            if i != j:
                sigma0 += alpha[i, j] * torch.outer(x[i] - negatives[j], x[i] - negatives[j]) / n
        sigma1 += (1 - alpha[i, i]) * torch.outer(x_pos[i] - x[i], x_pos[i] - x[i]) / n
    return sigma0, sigma1


def chain(matrices, size):
    product = torch.eye(size, dtype=torch.float64)
    for matrix in matrices:
        product = matrix @ product
    return product


def layer_gradients(weights, product_gradient):
    gradients = []
    for layer, weight in enumerate(weights):
        above = chain(weights[layer + 1 :], weight.shape[0])
        below = chain(weights[:layer], weights[0].shape[1])
        gradients.append(above.T @ product_gradient @ below.T)
    return gradients


def forward(weights, x, activation="linear", biases=()):
    rows = []
    for row in x:
        for layer, weight in enumerate(weights):
            row = weight @ row
            if biases:
                row = row + biases[layer]
            if activation == "relu" and layer < len(weights) - 1:
                row = torch.where(row > 0, row, 0.0)
        rows.append(row)
    return torch.stack(rows)


def network_loss(name, weights, pairs, activation="linear", biases=(), temperature=0.1):
    z, z_pos = (forward(weights, x, activation, biases) for x in (pairs.anchor, pairs.positive))
    return loss(name, z, z_pos, pairs.views, temperature)


def gradients(name, weights, pairs, activation="linear", biases=(), temperature=0.1):
    parameters = [p.detach().clone().requires_grad_() for p in (*weights, *biases)]
    depth = len(weights)
    value = network_loss(name, parameters[:depth], pairs, activation, parameters[depth:], temperature)
    return torch.autograd.grad(value, parameters)


def sgd(name, weights, pairs, lr, steps, activation="linear", biases=(), temperature=0.1):
    parameters, depth = [p.clone() for p in (*weights, *biases)], len(weights)
    for _ in range(steps):
        slopes = gradients(name, parameters[:depth], pairs, activation, parameters[depth:], temperature)
        parameters = [p - lr * slope for p, slope in zip(parameters, slopes, strict=True)]
    return parameters


def covariance(z):
    mean = sum(z) / len(z)
    return sum(torch.outer(row - mean, row - mean) for row in z) / len(z)


def random_covariance(generator, d, rank=None):
    root = normal(generator, d, rank or d) / math.sqrt(rank or d)
    return root @ root.T


def rotation(generator, d):
    return torch.linalg.qr(normal(generator, d, d))[0]


@st.composite
def problems(draw):
    """Views (x, x_pos), a matrix P and a view convention, of any shape and of scales from 1e-3 to 3."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, d, m = draw(st.integers(2, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    runs = draw(st.sampled_from([(), (3,), (2, 2)]))
    exponents = st.floats(-3, 0.5)
    x = normal(generator, *runs, n, d) * 10 ** draw(exponents)
    x_pos = x + normal(generator, *runs, n, d) * 10 ** draw(exponents)
    p = normal(generator, *runs, m, d) * 10 ** draw(exponents)
    return x, x_pos, p, draw(st.sampled_from(["one-sided", "two-sided"]))


def escape_duration(start, target, force, depth):
    """Flow time of an aligned balanced mode from p = start to target: int dp / (L p^(3 - 2/L) x(p)), by quadrature.

    Gauss-Legendre in log p, 20 nodes per panel of half a unit: round-off is what is left.
    """
    edges = np.linspace(np.log(start), np.log(target), 2 * int(np.ceil(abs(np.log(target / start)))) + 2)
    nodes, shares = np.polynomial.legendre.leggauss(20)
    half = np.diff(edges)[:, None] / 2
    p = np.exp(edges[:-1, None] + half * (1 + nodes))
    return float((half * shares / (depth * p ** (2 - 2 / depth) * force(p))).sum())


def population_mode_force(data_var, aug_var):
    """Force x(p) = s (u + u^2) - a, u = 1 / (1 + p^2 s), on one mode of Eq. 2's population flow, one-sided."""
    return lambda p: data_var * (1 / (1 + p**2 * data_var) + 1 / (1 + p**2 * data_var) ** 2) - aug_var
