"""What a toy network minimises: a loss, its temperature and the network's activation, with value and gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.covariance import contrastive_covariance
from dyncollapse.gaussian import Pairs
from dyncollapse.losses import (
    LOSSES,
    dot_infonce,
    infonce,
    infonce_weights,
    loss_temperature,
    ntxent,
    spectral,
)
from dyncollapse.networks import ACTIVATIONS, Weights, end_to_end, forward, layer_gradients


@dataclass(frozen=True)
class Objective:
    """A loss by name, its temperature (dot and ntxent only, 0.1 unless given) and the network's activation.

    Pairs may carry batch axes in front of the runs' axes: value and gradient are averaged over them.
    Raises ValueError for unknown names, for a temperature the loss does not have, and for ntxent on
    one-sided pairs, which that loss does not define.
    """

    loss: str = "infonce"
    temperature: float | None = None
    activation: str = "linear"

    def __post_init__(self) -> None:
        """Check the names and fill in the temperature."""
        for name, value, allowed in (
            ("loss", self.loss, LOSSES),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
        object.__setattr__(self, "temperature", loss_temperature(self.loss, self.temperature))

    def check_views(self, views: str) -> None:
        """Raise ValueError when the loss is not defined under this view convention."""
        if self.loss == "ntxent" and views != "two-sided":
            raise ValueError("ntxent is symmetric in both views; it needs two-sided views, not one-sided")

    def value(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> Float[Tensor, "*runs"]:
        """Loss of every run, averaged over the batch and over any batch axes in front of the runs'."""
        self.check_views(pairs.views)
        z = forward(weights, pairs.anchor, self.activation, biases)
        z_pos = forward(weights, pairs.positive, self.activation, biases)
        negatives = None if pairs.views == "one-sided" else z_pos
        if self.loss == "infonce":
            loss = infonce(z, z_pos, negatives)
        elif self.loss == "dot":
            assert self.temperature is not None
            loss = dot_infonce(z, z_pos, negatives, self.temperature)
        elif self.loss == "ntxent":
            assert self.temperature is not None
            loss = ntxent(z, z_pos, self.temperature)
        else:
            loss = spectral(z, z_pos, negatives)
        return _mean_over_batches(loss, weights[0].ndim - 2)

    def gradient(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Gradient with respect to every weight matrix, then every bias.

        Linear networks without biases under Eq. 2 use dL/dP = -P X (Lemma 2) and Lemma 3; all others autograd.
        """
        batches = _split_batches(pairs, weights[0].ndim)
        if self.loss == "infonce" and self.activation == "linear" and not biases:
            product = end_to_end(weights)
            force = torch.stack([infonce_force(product, batch) for batch in batches]).mean(0)
            return layer_gradients(weights, -product @ force)
        parameters = [p.detach().requires_grad_() for p in (*weights, *biases)]
        totals = [torch.zeros_like(p) for p in parameters]
        for batch in batches:
            with torch.enable_grad():
                loss = self.value(tuple(parameters[: len(weights)]), batch, parameters[len(weights) :])
            for total, gradient in zip(totals, torch.autograd.grad(loss.sum(), parameters), strict=True):
                total.add_(gradient, alpha=1 / len(batches))
        return tuple(totals)


def infonce_force(product: Float[Tensor, "*runs m d"], pairs: Pairs) -> Float[Tensor, "*runs d d"]:
    """X of Lemma 2 on one batch: dL/dP = -P X under Eq. 2."""
    z, z_pos = pairs.anchor @ product.mT, pairs.positive @ product.mT
    alpha = infonce_weights(z, z_pos, None if pairs.views == "one-sided" else z_pos)
    return contrastive_covariance(pairs.anchor, pairs.positive, alpha, pairs.negatives).force


def _split_batches(pairs: Pairs, ndim: int) -> list[Pairs]:
    """Take the batch axes in front of the runs' apart: one batch's n x n arrays fit the cache, M of them do not."""
    extra = pairs.anchor.ndim - ndim
    if extra <= 0:
        return [pairs]
    anchors, positives = (x.flatten(0, extra - 1) for x in (pairs.anchor, pairs.positive))
    return [Pairs(x, x_pos, pairs.views) for x, x_pos in zip(anchors, positives, strict=True)]


def _mean_over_batches(values: Tensor, ndim: int) -> Tensor:
    extra = values.ndim - ndim
    return values.mean(dim=tuple(range(extra))) if extra > 0 else values
