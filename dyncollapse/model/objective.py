"""What a toy network minimises: a loss, its temperature and the network's activation, with value and gradient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.choices import ACTIVATIONS, LOSSES
from dyncollapse.model.covariance import centred_force
from dyncollapse.model.gaussian import Pairs
from dyncollapse.model.losses import (
    centred_logits,
    check_loss_views,
    dot_infonce,
    infonce,
    loss_temperature,
    matrix_product,
    negative_weights,
    ntxent,
    spectral,
)
from dyncollapse.model.networks import Weights, end_to_end, forward, layer_gradients
from dyncollapse.model.precision import common_precision, outside_autocast

# Bytes of softmax weights that are differentiated together (ours): of 64 batches or runs of 128 pairs in float32, so
# that the work outweighs the calls and a cache holds it.
MOST_BYTES = 2**22


@dataclass(frozen=True)
class Objective:
    """A loss by name, its temperature (dot and ntxent only, 0.1 unless given) and the network's activation.

    Pairs may carry batch axes in front of the runs' axes: value and gradient are averaged over them.
    A subclass with a `value` of its own is trained and integrated on that, by autograd; closed forms refuse it
    (`named_loss`). Raises ValueError for unknown names, for a temperature the loss does not have, and for ntxent on
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
        check_loss_views(self.loss, views)

    @outside_autocast
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

    def closed_form(self, biases: Sequence[Tensor] = ()) -> bool:
        """Whether `gradient` does without autograd: under Eq. 2, for linear networks without biases."""
        eq_2 = self.loss == "infonce" and type(self).value is Objective.value
        return eq_2 and self.activation == "linear" and not biases

    @outside_autocast
    def gradient(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Gradient with respect to every weight matrix, then every bias.

        Where there is a closed form it is dL/dP = -P X (Lemma 2) and Lemma 3; elsewhere autograd.
        """
        groups = _group_batches(pairs, weights[0].ndim)
        if self.closed_form(biases):
            product = end_to_end(weights)
            forces = [_mean_over_batches(_force(product, group), product.ndim) for _, group in groups]
            if len(forces) > 1:
                forces = [torch.stack([s * f for (s, _), f in zip(groups, forces, strict=True)]).sum(0)]
            return layer_gradients(weights, matrix_product(product, forces[0].neg_().to(product.dtype)))
        parameters = [p.detach().requires_grad_() for p in (*weights, *biases)]
        totals = [torch.zeros_like(p) for p in parameters]
        for share, group in groups:
            with torch.enable_grad():
                loss = self.value(tuple(parameters[: len(weights)]), group, parameters[len(weights) :])
            for total, gradient in zip(totals, torch.autograd.grad(loss.sum(), parameters), strict=True):
                total.add_(gradient, alpha=share)
        return tuple(totals)


def named_loss(objective: Objective) -> str:
    """Loss whose formulas hold for this objective, decided by what computes it and not by its name alone.

    Raises ValueError for anything but an Objective and for a subclass that computes value or gradient by itself: no
    closed form is known for those.
    """
    kind = type(objective)
    if not isinstance(objective, Objective):
        raise ValueError(f"the objective is of type {kind.__name__}; closed forms are known for Objective only")
    own = [name for name in ("value", "gradient") if getattr(kind, name) is not getattr(Objective, name)]
    if own:
        raise ValueError(
            f"{kind.__name__} computes its {' and '.join(own)} by itself, so the closed forms of {objective.loss} do "
            "not hold for it; use the sample flow or SGD, or a plain Objective"
        )
    return objective.loss


@outside_autocast
def infonce_force(product: Float[Tensor, "... m d"], pairs: Pairs) -> Float[Tensor, "... d d"]:
    """X of Lemma 2 on one batch: dL/dP = -P X under Eq. 2, in float32 at least. Not to be differentiated."""
    if product.itemsize < 4:
        dtype = common_precision((product.dtype, pairs.anchor.dtype))
        product, pairs = product.to(dtype), pairs.to(dtype)
    total = pairs.anchor.sum(dim=-2, keepdim=True)
    x, shift = torch.sub(pairs.anchor, total, alpha=1 / pairs.anchor.shape[-2]), pairs.positive - pairs.anchor
    columns = product.detach().mT
    z, z_shift = matrix_product(x, columns), matrix_product(shift, columns)
    y, z_negative = (x, z) if pairs.views == "one-sided" else (x + shift, z + z_shift)
    return centred_force(x, shift, *negative_weights(centred_logits(z, z_shift, z_negative)), y)


def _force(product: Tensor, pairs: Pairs) -> Tensor:
    """`infonce_force`, of some runs at a time where all of them would not fit a CPU's cache."""
    shape = pairs.anchor.shape
    alike = product.ndim > 2 and product.shape[:-2] == shape[:-2]
    if product.is_cuda or not alike or shape[0] <= (size := _together(shape[1:], product.itemsize)):
        return infonce_force(product, pairs)
    parts = zip(*(tensor.split(size) for tensor in (product, pairs.anchor, pairs.positive)), strict=True)
    return torch.cat([infonce_force(p, Pairs(x, x_pos, pairs.views)) for p, x, x_pos in parts])


def _together(shape: torch.Size, itemsize: int) -> int:
    """How many times the n x n arrays of anchors (*batches, n, d) fit MOST_BYTES, at least once."""
    return max(1, MOST_BYTES // (itemsize * math.prod(shape[:-1]) * shape[-2]))


def _group_batches(pairs: Pairs, ndim: int) -> list[tuple[float, Pairs]]:
    """Take the batch axes in front of the runs' apart, into groups that fit a cache with their n x n arrays.

    Each comes with the share of all batches that it is.
    """
    extra = pairs.anchor.ndim - ndim
    if extra <= 0:
        return [(1.0, pairs)]
    anchors, positives = (x.flatten(0, extra - 1) for x in (pairs.anchor, pairs.positive))
    size = _together(anchors.shape[1:], anchors.itemsize)
    groups = zip(anchors.split(size), positives.split(size), strict=True)
    return [(len(x) / len(anchors), Pairs(x, x_pos, pairs.views)) for x, x_pos in groups]


def _mean_over_batches(values: Tensor, ndim: int) -> Tensor:
    extra = values.ndim - ndim
    return values.mean(dim=tuple(range(extra))) if extra > 0 else values
