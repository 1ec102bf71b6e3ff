"""What a toy network minimises: a loss, its constant and the network's activation, with value and gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import mean_over_batches
from dyncollapse.model.array_arguments import takes_arrays
from dyncollapse.model.choices import ACTIVATIONS, LOSSES
from dyncollapse.model.forces import FORCED, mean_force
from dyncollapse.model.losses import check_loss_views, loss_invariance, loss_temperature
from dyncollapse.model.named_losses import named_gradients, named_value
from dyncollapse.model.network_gradients import (
    automatic_gradient,
    forced_gradient,
    layered_gradient,
    linear_curvature,
    linear_gradient,
)
from dyncollapse.model.networks import Weights, forward, is_linear
from dyncollapse.model.own_loss import (
    Loss,
    LossWithGradient,
    LossWithPopulation,
    called,
    check_arguments,
    check_finite,
    check_slopes,
    check_value,
    differentiated,
    loss_name,
)
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import outside_autocast


@dataclass(frozen=True)
class Objective:
    """What a toy network minimises: a loss, its constant and the network's activation.

    Pairs may carry batch axes in front of the runs' axes: value and gradient are averaged over them.

    Attributes:
        loss: "infonce" (the paper's Eq. 2), "dot" (the authors' toy code), "ntxent" (SimCLR), "spectral", "vcreg" and
            "vicreg" (VICReg without and with its hinge), "barlow" and "barlow-normalised" (Barlow Twins on covariances
            and on correlations); or a loss of your own, a function of the embeddings (z, z_pos, negatives), which is
            differentiated automatically unless it has a `gradient`.
        temperature: Of dot and ntxent, 0.1 unless given; None for the others.
        activation: "linear" or "relu", between the layers.
        invariance: Weight of the invariance of vcreg and vicreg, 1 unless given; None for the others.

    Raises:
        ValueError: For unknown names, a temperature or an invariance that the loss does not have, and a function that
            does not take three arguments; when used, for ntxent on one-sided pairs, on which it is not defined.

    References:
        docs/explanation/theory.md, section 2; docs/how-to/add-a-loss.md for a loss of your own.

    Examples:
        >>> Objective("dot")
        Objective(loss='dot', temperature=0.1, activation='linear', invariance=None)
        >>> Objective(lambda z, z_pos, negatives: (z - z_pos).square().sum(-1).mean(-1)).closed_form
        False
    """

    loss: str | Loss = "infonce"
    temperature: float | None = None
    activation: str = "linear"
    invariance: float | None = None

    def __init_subclass__(cls) -> None:
        """Refuse subclasses: closed forms are chosen by the loss."""
        raise TypeError("Objective is not made to be subclassed; give a function as its loss: Objective(loss=function)")

    def __post_init__(self) -> None:
        """Check the names and fill in the constant."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        if isinstance(self.loss, str) or not callable(self.loss):
            if self.loss not in LOSSES:
                raise ValueError(f"loss is {self.loss!r}; choose one of {', '.join(LOSSES)}, or give a function")
            object.__setattr__(self, "temperature", loss_temperature(self.loss, self.temperature))
            object.__setattr__(self, "invariance", loss_invariance(self.loss, self.invariance))
            return
        check_arguments(self.loss)
        for name, value in (("temperature", self.temperature), ("invariance", self.invariance)):
            if value is not None:
                raise ValueError(f"{name} is {value}, but {self.name} is a loss of your own; set it in the function")

    @property
    def name(self) -> str:
        """What messages and records call the loss."""
        return loss_name(self.loss)

    @property
    def closed_form(self) -> bool:
        """Whether `gradient` needs no automatic differentiation: for named losses, and those that bring a gradient."""
        return isinstance(self.loss, str | LossWithGradient)

    @property
    def has_force(self) -> bool:
        """Whether `force` and, for linear networks, `curvature` are closed forms of this loss."""
        return isinstance(self.loss, str) and self.loss in FORCED

    def smooth(self, layers: int) -> bool:
        """Whether `gradient` is continuous: ReLU between layers and the hinge of vicreg have kinks.

        Args:
            layers: The number of layers of the network.

        Returns:
            False where the gradient jumps.

        Examples:
            >>> relu = Objective(activation="relu")
            >>> relu.smooth(1), relu.smooth(2), Objective("vicreg").smooth(1)
            (True, False, False)
        """
        return self.loss != "vicreg" and is_linear(self.activation, layers)

    @property
    def _constant(self) -> float | None:
        return self.invariance if self.temperature is None else self.temperature

    @property
    def population(self) -> LossWithPopulation | None:
        """A loss of your own that brings its population limit, else None; the named losses' limits are formulas."""
        return self.loss if not isinstance(self.loss, str) and isinstance(self.loss, LossWithPopulation) else None

    def check_views(self, views: str) -> None:
        """Raise ValueError when the loss is not defined under this view convention."""
        if isinstance(self.loss, str):
            check_loss_views(self.loss, views)

    @takes_arrays
    def check_start(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> None:
        """Raise ValueError for a loss of your own that is unusable, or not finite, at the start of a path.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            pairs: Views (*batches, *runs, n, d).
            biases: One tensor (*runs, out) per layer, or none.

        Raises:
            ValueError: One line that says what the loss returned and what it must return.
        """
        self.check_views(pairs.views)
        if not isinstance(self.loss, str):
            value = self.value(weights, pairs, biases).detach()
            check_finite(self.loss, value, self.gradient(weights, pairs, biases))

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
        """Loss of every batch from its embeddings.

        Args:
            z: Embeddings of the anchors (*any, n, m), with any axes for batches and runs.
            z_pos: Embeddings of the positives.
            views: The view convention of the pairs, "one-sided" or "two-sided".

        Returns:
            One loss per batch, a mean over its n pairs.

        Raises:
            ValueError: For a loss of your own that does not return one number per batch.

        Examples:
            >>> z = torch.zeros(4, 2)
            >>> round(Objective().embedding_loss(z, z).item(), 4)  # log 4: nothing tells the positive from three others
            1.3863
        """
        if not isinstance(self.loss, str):
            with called(self.loss):
                value = self.loss(z, z_pos, z if views == "one-sided" else z_pos)
            return check_value(self.loss, value, z)
        return named_value(self.loss, self._constant, z, z_pos, views)

    @takes_arrays
    def embedding_gradients(
        self, z: Float[Tensor, "*any n m"], z_pos: Float[Tensor, "*any n m"], views: str = "two-sided"
    ) -> tuple[Float[Tensor, "*any n m"], Float[Tensor, "*any n m"]]:
        """Gradients of every batch's loss with respect to its embeddings, without automatic differentiation.

        Args:
            z: Embeddings of the anchors (*any, n, m), with any axes for batches and runs.
            z_pos: Embeddings of the positives.
            views: The view convention of the pairs, "one-sided" or "two-sided".

        Returns:
            The gradients of z and z_pos; that of the negatives is part of the one they come from.

        Raises:
            ValueError: For a loss of your own without a `gradient`.

        References:
            Jing et al. 2022, Lemma 1.

        Examples:
            >>> z, z_pos = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]])
            >>> g, g_pos = Objective().embedding_gradients(z, z_pos, "one-sided")
            >>> bool(torch.equal(g, -g_pos))  # anchors at one point only attract their positives
            True
        """
        slopes = self._slopes(z, z_pos, views)
        if len(slopes) == 2:
            return slopes[0], slopes[1]
        g, g_pos, g_negative = slopes
        return (g + g_negative, g_pos) if views == "one-sided" else (g, g_pos + g_negative)

    @torch.no_grad()
    def _slopes(self, z: Tensor, z_pos: Tensor, views: str) -> tuple[Tensor, ...]:
        if isinstance(self.loss, str):
            return named_gradients(self.loss, self._constant, z, z_pos, views)
        if isinstance(self.loss, LossWithGradient):
            with called(self.loss):
                given = self.loss.gradient(z, z_pos, z if views == "one-sided" else z_pos)
            return check_slopes(self.loss, given, z)
        raise ValueError(f"the loss {self.name} has no `gradient` of its own; use Objective.gradient on a network")

    @takes_arrays
    @outside_autocast
    def force(self, product: Float[Tensor, "*runs m d"], pairs: Pairs) -> Float[Tensor, "*runs d d"]:
        """X of a linear network, with dL/dP = -P X (Lemma 2), averaged over any batch axes in front of the runs'.

        Args:
            product: End-to-end matrices P. For a network with offsets c it is [P c], and the pairs have one more input
                that is always 1.
            pairs: Views (*batches, *runs, n, d).

        Returns:
            One symmetric X per run; docs/explanation/theory.md has the formula of each loss. For infonce it is
            Sigma0 - Sigma1.

        Raises:
            ValueError: For a loss of your own, for vicreg and barlow-normalised, which see single coordinates of the
                embedding and have no such X, and for ntxent on one-sided pairs.

        References:
            Jing et al. 2022, Lemma 2; docs/explanation/theory.md, section 3.

        Examples:
            >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
            >>> float(Objective("spectral").force(torch.zeros(1, 1), pairs))  # pulled along x x'
            12.0
        """
        self.check_views(pairs.views)
        _check_product(product, pairs)
        return mean_force(product, pairs, self._forced(), self._constant)

    def _forced(self) -> str:
        if isinstance(self.loss, str) and self.loss in FORCED:
            return self.loss
        why = "which sees single coordinates of the embedding" if isinstance(self.loss, str) else "a loss of your own"
        raise ValueError(f"no force is known for {self.name}, {why}; it is for {', '.join(FORCED)}")

    @takes_arrays
    @outside_autocast
    def gradient(self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Gradient with respect to every weight matrix, then every bias.

        It is a closed form for the named losses: dL/dP, which is -P X (Lemma 2), is pulled back to the layers (Lemma
        3); through ReLU the embeddings' gradients are passed down layer by layer. A loss of your own is differentiated
        automatically unless it has a `gradient`.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            pairs: Views (*batches, *runs, n, d).
            biases: One tensor (*runs, out) per layer, or none.

        Returns:
            One tensor per weight matrix and bias, in their shapes.

        Raises:
            ValueError: For ntxent on one-sided pairs, and a loss of your own that is unusable.

        References:
            Jing et al. 2022, Lemmas 1 to 3.

        Examples:
            >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
            >>> (slope,) = Objective().gradient((0.01 * torch.ones(1, 1),), pairs)
            >>> round(slope.item() / -0.01, 2)  # X near P = 0: 2 from the data less 0.5 from the augmentation
            1.5
        """
        self.check_views(pairs.views)
        if not self.closed_form:
            return automatic_gradient(self.value, partial(differentiated, self.loss), weights, pairs, biases)
        weights, biases = tuple(w.detach() for w in weights), tuple(b.detach() for b in biases)
        linear = is_linear(self.activation, len(weights))
        if linear and isinstance(self.loss, str) and self.has_force and self.loss != "ntxent":
            return forced_gradient(self.loss, self._constant, weights, pairs, biases)
        slopes = partial(self.embedding_gradients, views=pairs.views)
        if linear:  # for ntxent as well: its X leaves the range of numbers where embeddings are shorter than 1e-150
            return linear_gradient(slopes, weights, pairs, biases)
        return layered_gradient(slopes, weights, pairs, biases, self.activation)

    @takes_arrays
    def curvature(
        self, weights: Weights, pairs: Pairs, biases: Sequence[Tensor] = ()
    ) -> Callable[[Sequence[Tensor]], tuple[Tensor, ...]]:
        """Derivative of `gradient` along any direction of the parameters: the Hessian of the loss times a vector.

        Exact and without automatic differentiation, for linear networks under the losses that have a `force`. The
        softmax weights of a loss that has them are computed once, here, and kept: n x n numbers per batch. A direction
        then costs about twice the matrix products of a gradient, and no exponentials.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            pairs: Views (*batches, *runs, n, d).
            biases: One tensor (*runs, out) per layer, or none.

        Returns:
            A function of a direction, one tensor per weight matrix and bias, that returns as many tensors, in float32
            at least.

        Raises:
            ValueError: For ReLU networks, losses without a `force`, and ntxent on one-sided pairs.

        References:
            docs/explanation/theory.md, section 3.

        Examples:
            >>> pairs = Pairs(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
            >>> (change,) = Objective().curvature((torch.zeros(1, 1),), pairs)([torch.ones(1, 1)])
            >>> float(change)  # -X at P = 0
            -1.5
        """
        loss = self._forced()
        if not is_linear(self.activation, len(weights)):
            raise ValueError(f"the curvature is known for linear networks, not for {self.activation} layers")
        self.check_views(pairs.views)
        return takes_arrays(linear_curvature(loss, self._constant, weights, pairs, biases))


def _check_product(product: Tensor, pairs: Pairs) -> None:
    shapes = [tuple(x.shape) for x in (product, pairs.anchor, pairs.positive)]
    fits = product.ndim >= 2 and pairs.anchor.ndim >= 2 and shapes[1] == shapes[2] and shapes[0][-1] == shapes[1][-1]
    # Views may have axes of size 1, which all runs share, and fewer axes than the product.
    runs = zip(shapes[1][-3::-1], shapes[0][-3::-1], strict=False)
    if not fits or not pairs.anchor.numel() or any(own not in (1, run) for own, run in runs):
        raise ValueError(
            f"the product is {shapes[0]}, the views are {shapes[1]} and {shapes[2]}; give a product (*runs, m, d) and "
            "views (*batches, *runs, n, d) with the same d and runs"
        )


def named_loss(objective: Objective) -> str:
    """Name of the loss whose formulas hold for this objective.

    Args:
        objective: An Objective.

    Returns:
        Its `loss`.

    Raises:
        ValueError: For anything but an Objective, and for a loss of one's own: no closed form is known for that.
    """
    if not isinstance(objective, Objective):
        raise ValueError(
            f"the objective is of type {type(objective).__name__}; closed forms are known for Objective only"
        )
    if not isinstance(objective.loss, str):
        raise ValueError(
            f"no closed form is known for {objective.name}, a loss of your own; use the sample flow or SGD, or one of "
            f"{', '.join(LOSSES)}"
        )
    return objective.loss
