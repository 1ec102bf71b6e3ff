"""Population losses written as in the literature, from three moments, and their minima by brute force."""

import torch
from scipy.optimize import minimize

LOSSES = (
    ("infonce", None, None),
    ("dot", 0.5, None),
    ("spectral", None, None),
    ("vcreg", None, 0.4),
    ("vcreg", None, 1.0),
    ("vcreg", None, 1.6),
    ("barlow", None, None),
)


def population_value(p, task, loss, temperature=None, invariance=None, weight_decay=0.0):
    """Loss of P (m, d) in the limit of infinitely many pairs, with (w / 2) |P|^2."""
    (s_e, a_e), g = task.seen, task.shared
    c, shift, shared = p @ s_e @ p.T, (p @ a_e @ p.T).trace(), p @ g @ p.T
    eye = torch.eye(len(p), dtype=p.dtype)
    if loss == "infonce":
        value = (shift - torch.logdet(eye + c) - (torch.linalg.inv(eye + c) @ c).trace()) / 2
    elif loss == "dot":
        value = -shared.trace() / temperature + (c @ c).trace() / (2 * temperature**2)
    elif loss == "spectral":
        value = -2 * shared.trace() + (c @ c).trace()
    elif loss == "vcreg":
        value = (c - eye).square().sum() + (1.0 if invariance is None else invariance) * shift
    else:
        value = (shared - eye).square().sum()
    return value + weight_decay / 2 * p.square().sum()


def minimised(start, task, *loss, **decay):
    """P at a minimum of the population loss, by BFGS."""

    def value(entries):
        p = torch.tensor(entries.reshape(start.shape), requires_grad=True)
        loss_value = population_value(p, task, *loss, **decay)
        (gradient,) = torch.autograd.grad(loss_value, p)
        return loss_value.item(), gradient.numpy().ravel()

    found = minimize(value, start.numpy().ravel(), jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000})
    return torch.tensor(found.x.reshape(start.shape))
