"""What BYOL and SimSiam step: an online encoder with a predictor, against a target behind a stop-gradient.

The steps are the gradient of no function of all parameters, since the target takes part without being differentiated.
Linear networks see second moments of the pairs alone, so that their flow is exact for pairs of any distribution.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import matrix_product, mean_over_batches
from dyncollapse.model.array_arguments import takes_arrays
from dyncollapse.model.choices import ACTIVATIONS
from dyncollapse.model.networks import Weights, end_to_end, forward, is_linear, layer_gradients, layer_outputs
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import outside_autocast
from dyncollapse.model.pullback import end_to_end_along, layer_gradients_along, through_layers

Along = Callable[[Sequence[Tensor]], list[Tensor]]


class OnlineMoments(NamedTuple):
    """Second moments of pairs, as a linear network with a predictor sees them.

    Attributes:
        online: S (*runs, d, d), of what the online encoder reads.
        cross: E[x_target x_online^T] (*runs, d, d).
        target: Of what the target reads (*runs, d, d).
    """

    online: Tensor
    cross: Tensor
    target: Tensor

    @classmethod
    def of_task(cls, task: Task) -> Self:
        """Moments of infinitely many pairs: S_e, G, and the covariance A_e + 2 G - S_e of the positives."""
        s_e, a_e = task.seen
        return cls(s_e, task.shared, s_e if task.views == "two-sided" else a_e + 2 * task.shared - s_e)

    @classmethod
    def of_pairs(cls, pairs: Pairs, runs: int) -> Self:
        """Moments (*runs, d, d) of views (*batches, *runs, n, d), where the runs have `runs` axes."""
        online, target = _roles(pairs)
        n = online.shape[-2]
        products = (matrix_product(a.mT, b) / n for a, b in ((online, online), (target, online), (target, target)))
        return cls(*(mean_over_batches(product, runs + 2) for product in products))


@dataclass(frozen=True)
class SelfDistillation:
    """BYOL and SimSiam: the encoder and a linear predictor learn to match a target that is not differentiated.

    A pair costs |W_p z - z_target|^2 / 2 with z = P x of the online encoder. The target is the online encoder itself
    (SimSiam) or a network of the same shape that follows it, layer by layer: dW_target / dt = target_rate (W -
    W_target) (BYOL). Two-sided views take both roles in turn, and the loss is the mean of both. One-sided views keep
    theirs: the clean anchor is online, and the positive is the target. Then G = S_e, and augmentation changes nothing
    but the noise of the steps.

    `train`, `sample_flow` and `population_flow` take it as their objective, together with the predictor that they start
    from. The parameters beside the weights are the *state*: the predictor (*runs, m, m) and, for BYOL, the target's
    layers. Weight decay acts on weights and predictor, not on the target.

    Attributes:
        predictor_rate: Factor on the predictor's gradient, as if it had so many times the learning rate; 0 keeps the
            predictor, but for weight decay.
        target_rate: Rate at which the target follows, in units of 1 / time; None for SimSiam. Steps of SGD with
            learning rate lr multiply the difference by m = 1 - target_rate lr / (1 - momentum), the momentum of BYOL's
            moving average. They update the target last, as BYOL does.
        activation: "linear" or "relu", between the encoder's layers. The predictor is linear, and nothing has biases.

    Raises:
        ValueError: For rates out of range and unknown activations.

    References:
        Tian, Chen, Ganguli 2021, arXiv 2102.06810; docs/explanation/beyond-the-paper.md, section 5j.

    Examples:
        >>> SelfDistillation().target_rate is None  # SimSiam
        True
        >>> pairs = Pairs(torch.eye(2), 2 * torch.eye(2))
        >>> one, predictor = (torch.eye(2),), torch.eye(2)
        >>> float(SelfDistillation().value(one, pairs, [predictor]))  # |x - 2 x|^2 / 2
        0.5
    """

    predictor_rate: float = 1.0
    target_rate: float | None = None
    activation: str = "linear"

    def __post_init__(self) -> None:
        """Check rates and activation."""
        for name, rate, allowed, fine in (
            ("predictor_rate", self.predictor_rate, "finite and at least 0", lambda value: value >= 0),
            ("target_rate", self.target_rate, "finite and above 0, or None for SimSiam", lambda value: value > 0),
        ):
            if rate is None and name == "target_rate":
                continue
            if isinstance(rate, bool) or not isinstance(rate, Real) or not (fine(rate) and rate < math.inf):
                raise ValueError(f"{name} is {rate!r}; it must be {allowed}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; choose one of {', '.join(ACTIVATIONS)}")

    @property
    def loss(self) -> str:
        """The method's name: "simsiam" without a target of its own, "byol" with one."""
        return "simsiam" if self.target_rate is None else "byol"

    @property
    def closed_form(self) -> bool:
        """Whether `gradient` needs no automatic differentiation: always."""
        return True

    @property
    def has_force(self) -> bool:
        """Whether the flow is that of a force X, dW/dt = W X: never."""
        return False

    def smooth(self, depth: int) -> bool:
        """Whether the velocity of a network of this depth is smooth; ReLU's jumps."""
        return is_linear(self.activation, depth)

    def check_views(self, views: str) -> None:
        """Accept either view convention."""

    @takes_arrays
    def check_start(self, weights: Weights, pairs: Pairs, state: Sequence[Tensor]) -> None:
        """Raise ValueError where the loss or its gradient is not finite at the start of a path."""
        found = (self.value(weights, pairs, state), *self.gradient(weights, pairs, state))
        if not all(bool(torch.isfinite(values).all()) for values in found):
            raise ValueError("the loss of the initial weights and predictor is NaN or infinite; give smaller ones")

    @takes_arrays
    @outside_autocast
    def value(self, weights: Weights, pairs: Pairs, state: Sequence[Tensor]) -> Float[Tensor, "*runs"]:
        """Loss of every run, averaged over the pairs and over any batch axes in front of the runs'.

        Args:
            weights: One tensor (*runs, out, in) per layer of the online encoder.
            pairs: Views (*batches, *runs, n, d).
            state: The predictor (*runs, m, m), then for BYOL the target's layers.

        Returns:
            One loss per run. No flow descends it, since the target moves as well.
        """
        online, target = _roles(pairs)
        gap = forward(weights, online, self.activation) @ state[0].mT - self._targets(weights, target, state)
        return mean_over_batches(gap.square().sum(-1).mean(-1) / 2, weights[0].ndim - 2)

    @takes_arrays
    @torch.no_grad()
    @outside_autocast
    def gradient(self, weights: Weights, pairs: Pairs, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradient behind the stop-gradient: of `value` with the target held fixed.

        Args:
            weights: One tensor (*runs, out, in) per layer of the online encoder.
            pairs: Views (*batches, *runs, n, d).
            state: The predictor (*runs, m, m), then for BYOL the target's layers.

        Returns:
            One tensor per weight matrix, in its shape, and that of the predictor times `predictor_rate`.

        References:
            Tian, Chen, Ganguli 2021, Eq. 1 and 2.

        Examples:
            >>> pairs = Pairs(torch.eye(2), 2 * torch.eye(2))
            >>> of_encoder, of_predictor = SelfDistillation().gradient((torch.eye(2),), pairs, [torch.eye(2)])
            >>> of_encoder.diagonal().tolist(), of_predictor.diagonal().tolist()  # both grow
            ([-0.5, -0.5], [-0.5, -0.5])
        """
        online, target = _roles(pairs)
        predictor, n, runs = state[0], online.shape[-2], weights[0].ndim - 2
        linear = is_linear(self.activation, len(weights))
        outputs = [online @ end_to_end(weights).mT] if linear else list(layer_outputs(weights, online, "relu"))
        z = outputs[-1]
        gap = (z @ predictor.mT - self._targets(weights, target, state)) / n
        of_predictor = mean_over_batches(matrix_product(gap.mT, z), runs + 2)
        slope = gap @ predictor
        if linear:
            layers = layer_gradients(weights, mean_over_batches(matrix_product(slope.mT, online), runs + 2))
        else:
            layers = through_layers(weights, online, outputs, slope, "relu", biased=False)
        return (*layers, self.predictor_rate * of_predictor)

    def _targets(self, weights: Weights, x: Tensor, state: Sequence[Tensor]) -> Tensor:
        return forward(tuple(state[1:]) or weights, x, self.activation)

    @outside_autocast
    @takes_arrays
    def moment_value(self, weights: Weights, moments: OnlineMoments, state: Sequence[Tensor]) -> Float[Tensor, "*runs"]:
        """Loss of a linear network from second moments of the pairs: `value` on any pairs that have these moments."""
        product, goal = end_to_end(weights), end_to_end(tuple(state[1:]) or weights)
        online = state[0] @ product
        squares = _inner(online @ moments.online, online) + _inner(goal @ moments.target, goal)
        return squares / 2 - _inner(goal @ moments.cross, online)

    @outside_autocast
    @takes_arrays
    def moment_gradient(self, weights: Weights, moments: OnlineMoments, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`gradient` of a linear network from second moments of the pairs: with R = W_p P S - P_target C.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            moments: S and C of the pairs.
            state: The predictor, then for BYOL the target's layers.

        Returns:
            W_p^T R = dL/dP pulled back to each layer (Lemma 3), and predictor_rate R P^T.

        Examples:
            >>> moments = OnlineMoments(torch.eye(1), torch.eye(1) / 2, torch.eye(1))
            >>> [float(g) for g in SelfDistillation(2.0).moment_gradient((torch.eye(1),), moments, [torch.eye(1)])]
            [0.5, 1.0]
        """
        product, goal = end_to_end(weights), end_to_end(tuple(state[1:]) or weights)
        residual = state[0] @ product @ moments.online - goal @ moments.cross
        layers = layer_gradients(weights, state[0].mT @ residual)
        return (*layers, self.predictor_rate * (residual @ product.mT))

    @outside_autocast
    @takes_arrays
    def moment_curvature(self, weights: Weights, moments: OnlineMoments, state: Sequence[Tensor]) -> Along:
        """Derivative of `moment_gradient` along any direction of weights and state.

        Args:
            weights: One tensor (out, in) per layer.
            moments: S and C of the pairs.
            state: The predictor, then for BYOL the target's layers.

        Returns:
            A function of a direction, one tensor per weight matrix and part of the state.
        """
        depth, predictor, goal = len(weights), state[0], tuple(state[1:]) or weights
        product, target = end_to_end(weights), end_to_end(goal)
        residual = predictor @ product @ moments.online - target @ moments.cross
        slope = predictor.mT @ residual

        def along(direction: Sequence[Tensor]) -> list[Tensor]:
            layers, turned = tuple(direction[:depth]), direction[depth]
            moved = end_to_end_along(weights, layers)
            goal_moved = end_to_end_along(goal, tuple(direction[depth + 1 :])) if len(state) > 1 else moved
            change = (turned @ product + predictor @ moved) @ moments.online - goal_moved @ moments.cross
            changes = layer_gradients_along(weights, layers, slope, turned.mT @ residual + predictor.mT @ change)
            return [*changes, self.predictor_rate * (change @ product.mT + residual @ moved.mT)]

        return along


def full_state(
    objective: object,
    weights: Weights,
    predictor: Tensor | None,
    target: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Parameters beside the weights: the biases of an Objective, predictor and target of a SelfDistillation.

    Args:
        objective: Either of both.
        weights: One tensor (*runs, out, in) per layer.
        predictor: W_p (*runs, m, m), or None.
        target: The target's layers, in the shapes of the weights; none for SimSiam, and for a BYOL target that starts
            as a copy of the encoder.
        biases: One tensor (*runs, out) per layer, or none.

    Returns:
        All that changes along a path beside the weights.

    Raises:
        ValueError: For a predictor, target or biases that are missing, superfluous, or do not fit the weights.
    """
    if not isinstance(objective, SelfDistillation):
        if predictor is not None or len(target):
            given = "predictor" if predictor is not None else "target"
            raise ValueError(f"{given} is given, but only SelfDistillation has one; drop it, or pass that objective")
        return tuple(biases)
    if len(biases):
        raise ValueError("SelfDistillation is for networks without biases; drop the biases")
    out, last = weights[-1].shape[-2], weights[-1]
    if predictor is None:
        raise ValueError(
            f"SelfDistillation needs the predictor it starts from, (*runs, {out}, {out}); give predictor=, for example "
            "balanced_predictor(weights)"
        )
    if objective.target_rate is None and len(target):
        raise ValueError("a target is given, but SimSiam has none of its own; drop it, or give SelfDistillation a rate")
    shapes = [(*last.shape[:-2], out, out), *(tuple(w.shape) for w in weights if len(target))]
    state = (predictor, *target)
    if [tuple(p.shape) for p in state] != shapes or any(
        (p.dtype, p.device) != (last.dtype, last.device) for p in state
    ):
        kinds = ", ".join(f"{tuple(p.shape)} of {p.dtype} on {p.device}" for p in state)
        raise ValueError(
            f"predictor and target are {kinds}; they must be {shapes} of {last.dtype} on {last.device}, as the weights"
        )
    if not all(bool(torch.isfinite(p).all()) for p in state):
        raise ValueError("the initial predictor or target holds NaN or infinity; give finite ones")
    return state if objective.target_rate is None or len(target) else (predictor, *weights)


def target_layers(objective: object, others: Sequence[Tensor]) -> Sequence[Tensor]:
    """Those of the parameters beside the weights that follow the weights: the layers of BYOL's target."""
    return others[1:] if isinstance(objective, SelfDistillation) else ()


def balanced_predictor(weights: Weights, predictor_rate: float = 1.0) -> Float[Tensor, "*runs m m"]:
    """A predictor in balance with the encoder's last layer: W_p = sqrt(predictor_rate) (W_L W_L^T)^(1/2).

    W_p^T W_p - predictor_rate W_L W_L^T is then 0, and stays 0 along every flow. Every direction of the embedding
    starts with a positive prediction: where the prediction is negative, the encoder shrinks to zero.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        predictor_rate: As in `SelfDistillation`.

    Returns:
        Symmetric PSD predictors.

    References:
        Tian, Chen, Ganguli 2021, Theorem 1; docs/explanation/beyond-the-paper.md, section 5j.

    Examples:
        >>> balanced_predictor((torch.diag(torch.tensor([2.0, -3.0])),)).round(decimals=5).diagonal().tolist()
        [2.0, 3.0]
    """
    u, s, _ = torch.linalg.svd(weights[-1], full_matrices=False)
    return predictor_rate**0.5 * (u * s.unsqueeze(-2)) @ u.mT


def _roles(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """What the online encoder and the target read, row by row: two-sided views take both roles."""
    if pairs.views == "one-sided":
        return pairs.anchor, pairs.positive
    both = torch.cat([pairs.anchor, pairs.positive], -2)
    return both, torch.cat([pairs.positive, pairs.anchor], -2)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))
