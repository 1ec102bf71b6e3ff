"""What a toy network minimises: a loss, its temperature and the network's activation, with value and gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import batch_groups, infonce_forces, matrix_product, mean_over_batches
from dyncollapse.model.array_arguments import takes_arrays
from dyncollapse.model.choices import ACTIVATIONS, LOSSES
from dyncollapse.model.covariance import contrastive_covariance
from dyncollapse.model.losses import (
    check_loss_views,
    dot_infonce,
    infonce,
    infonce_weights,
    loss_temperature,
    ntxent,
    spectral,
)
from dyncollapse.model.networks import Weights, end_to_end, forward, layer_gradients
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import common_precision, outside_autocast


@dataclass(frozen=True)
class Objective:
    """What a toy network minimises: a loss by name, its temperature and the network's activation.

    Pairs may carry batch axes in front of the runs' axes: value and gradient are averaged over them. For a loss of your
    own, override `embedding_loss`: SGD and sample flows then use it, by automatic differentiation. Closed forms refuse
    such a subclass.

    Attributes:
        loss: "infonce" (the paper's Eq. 2), "dot" (the authors' toy code), "ntxent" (SimCLR) or "spectral".
        temperature: Of dot and ntxent, 0.1 unless given; None for the others.
        activation: "linear" or "relu", between the layers.

    Raises:
        ValueError: For unknown names and a temperature that the loss does not have; when used, for ntxent on one-sided
            pairs, on which that loss is not defined.

    References:
        docs/explanation/theory.md, section 2; docs/how-to/add-a-loss.md for a loss of your own.

    Examples:
        >>> Objective("dot")
        Objective(loss='dot', temperature=0.1, activation='linear')
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

    @takes_arrays
    @outside_autocast
    def value(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> Float[Tensor, "*runs"]:
        """Loss of every run, averaged over the batch and over any batch axes in front of the runs'.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            pairs: Views (*batches, *runs, n, d).
            biases: One tensor (*runs, out) per layer, or none.

        Returns:
            One loss per run.

        Raises:
            ValueError: For ntxent on one-sided pairs.

        Examples:
            >>> pairs = Pairs(torch.eye(2), torch.eye(2))
            >>> round(float(Objective().value((torch.zeros(2, 2),), pairs)), 4)  # log 2
            0.6931
        """
        self.check_views(pairs.views)
        z = forward(weights, pairs.anchor, self.activation, biases)
        z_pos = forward(weights, pairs.positive, self.activation, biases)
        return mean_over_batches(self.embedding_loss(z, z_pos, pairs.views), weights[0].ndim - 2)

    @takes_arrays
    def embedding_loss(
        self, z: Float[Tensor, "*any n m"], z_pos: Float[Tensor, "*any n m"], views: str = "two-sided"
    ) -> Float[Tensor, "*any"]:
        """Loss of every batch from its embeddings: the method that a loss of your own overrides.

        Args:
            z: Embeddings of the anchors (*any, n, m), with any axes for batches and runs.
            z_pos: Embeddings of the positives.
            views: The view convention of the pairs, "one-sided" or "two-sided".

        Returns:
            One loss per batch, a mean over its n pairs.

        Examples:
            >>> z = torch.zeros(4, 2)
            >>> round(Objective().embedding_loss(z, z).item(), 4)  # log 4: nothing tells the positive from three others
            1.3863
        """
        negatives = None if views == "one-sided" else z_pos
        if self.loss == "infonce":
            return infonce(z, z_pos, negatives)
        if self.loss == "spectral":
            return spectral(z, z_pos, negatives)
        assert self.temperature is not None
        if self.loss == "dot":
            return dot_infonce(z, z_pos, negatives, self.temperature)
        return ntxent(z, z_pos, self.temperature)

    def closed_form(self, biases: Sequence[Any] = ()) -> bool:
        """Whether `gradient` needs no automatic differentiation: under Eq. 2, for linear networks without biases."""
        kind = type(self)
        eq_2 = kind.value is Objective.value and kind.embedding_loss is Objective.embedding_loss
        return eq_2 and self.loss == "infonce" and self.activation == "linear" and not biases

    @takes_arrays
    @outside_autocast
    def gradient(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Gradient with respect to every weight matrix, then every bias.

        Under Eq. 2 and for linear networks it is dL/dP = -P X (Lemma 2), pulled back to the layers (Lemma 3). Elsewhere
        it is automatic differentiation of `value`.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            pairs: Views (*batches, *runs, n, d).
            biases: One tensor (*runs, out) per layer, or none.

        Returns:
            One tensor per weight matrix and bias, in their shapes.

        Raises:
            ValueError: For ntxent on one-sided pairs, and for a `value` of a subclass that is not one loss per run.

        References:
            Jing et al. 2022, Lemmas 2 and 3.

        Examples:
            >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
            >>> (slope,) = Objective().gradient((0.01 * torch.ones(1, 1),), pairs)
            >>> round(slope.item() / -0.01, 2)  # X near P = 0: 2 from the data less 0.5 from the augmentation
            1.5
        """
        if self.closed_form(biases):
            product = end_to_end(weights)
            force = mean_force(product, pairs)
            return layer_gradients(weights, matrix_product(product, force).neg_())
        return self._by_autograd(weights, pairs, biases)

    def _by_autograd(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor]) -> tuple[Tensor, ...]:
        parameters = [p.detach().requires_grad_() for p in (*weights, *biases)]
        totals = [torch.zeros_like(p) for p in parameters]
        for share, x, x_pos in batch_groups(pairs.anchor, pairs.positive, weights[0].ndim):
            with torch.enable_grad():
                group = Pairs(x, x_pos, pairs.views)
                loss = self.value(tuple(parameters[: len(weights)]), group, parameters[len(weights) :])
            if loss.shape != (runs := weights[0].shape[:-2]):
                raise ValueError(
                    f"{type(self).__name__}.value has shape {tuple(loss.shape)}; "
                    f"it must be one loss per run, {tuple(runs)}: average over other axes"
                )
            for total, gradient in zip(totals, torch.autograd.grad(loss.sum(), parameters), strict=True):
                total.add_(gradient, alpha=share)
        return tuple(totals)


def named_loss(objective: Objective) -> str:
    """Name of the loss whose formulas hold for this objective.

    Args:
        objective: An Objective, or a subclass that changes neither loss nor gradient.

    Returns:
        Its `loss`.

    Raises:
        ValueError: For anything but an Objective, and for a subclass that computes its loss or gradient by itself: no
            closed form is known for those, whatever the name.
    """
    kind = type(objective)
    if not isinstance(objective, Objective):
        raise ValueError(f"the objective is of type {kind.__name__}; closed forms are known for Objective only")
    own = [
        name for name in ("value", "embedding_loss", "gradient") if getattr(kind, name) is not getattr(Objective, name)
    ]
    if own:
        raise ValueError(
            f"{kind.__name__} computes its {' and '.join(own)} by itself, so the closed forms of {objective.loss} do "
            "not hold for it; use the sample flow or SGD, or a plain Objective"
        )
    return objective.loss


@outside_autocast
def infonce_force(product: Float[Tensor, "... m d"], pairs: Pairs) -> Float[Tensor, "... d d"]:
    """X of Lemma 2 on each batch, with dL/dP = -P X under Eq. 2.

    Args:
        product: End-to-end matrices P.
        pairs: Views (*batches, n, d), whose batch axes end with the runs' axes.

    Returns:
        One force per batch, in float32 at least.

    References:
        Jing et al. 2022, Lemmas 1 and 2.

    Examples:
        >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        >>> float(infonce_force(torch.zeros(1, 1), pairs))  # 2 from the data less 0.5 from the augmentation
        1.5
    """
    dtype = common_precision((product.dtype, pairs.anchor.dtype))
    product, x, x_pos = product.to(dtype), pairs.anchor.to(dtype), pairs.positive.to(dtype)
    z, z_pos = x @ product.mT, x_pos @ product.mT
    y, z_negative = (x, z) if pairs.views == "one-sided" else (x_pos, z_pos)
    return contrastive_covariance(x, x_pos, infonce_weights(z, z_pos, z_negative), y).force


def mean_force(product: Float[Tensor, "*runs m d"], pairs: Pairs) -> Float[Tensor, "*runs d d"]:
    """`infonce_force`, averaged over the batch axes in front of the runs', fast and not to be differentiated."""
    force = infonce_forces(product, pairs.anchor, pairs.positive, one_sided=pairs.views == "one-sided")
    return force.to(product.dtype)
