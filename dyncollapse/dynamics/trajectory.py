"""Trajectory: the one record that training and every flow return."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.formats.arrays import load_npz
from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.conversion import as_tensor
from dyncollapse.model.networks import Weights, end_to_end, singular_values
from dyncollapse.model.precision import outside_autocast
from dyncollapse.runtime.files import write_whole
from dyncollapse.theory.imbalance import imbalance_drift

STATISTIC = "statistic_"  # what the names of statistics begin with in a file


@array_fields
@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """A path of weights over flow time t, as every training and flow returns it.

    One SGD step of learning rate lr advances t by lr. Where another optimiser took the steps, t counts them, and
    meta["time"] is "steps".

    Attributes:
        time: Recorded flow times (t,).
        weights: One tensor (t, *runs, out, in) per layer.
        loss: The loss at each time (t, *runs).
        biases: One tensor (t, *runs, out) per layer, or none.
        meta: How the path was made: dynamics, settings, seconds.
        statistics: What `record` asked for, one tensor (t, *runs, ...) per name.
        predictor: Predictor (t, *runs, m, m) of a SelfDistillation, else None.
        target: Layers of BYOL's target (t, *runs, out, in), or none.

    Examples:
        >>> path = Trajectory(torch.tensor([0.0, 1.0]), (torch.ones(2, 3, 3), torch.ones(2, 1, 3)), torch.zeros(2))
        >>> path.product.shape
        torch.Size([2, 1, 3])
    """

    time: Float[Tensor, " t"]
    weights: Weights
    loss: Float[Tensor, "t *runs"]
    biases: tuple[Tensor, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    predictor: Float[Tensor, "t *runs m m"] | None = None
    target: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        """How many states of which layers, and until when."""
        shapes = ", ".join(str(tuple(w.shape[1:])) for w in self.weights)
        until = f", until t = {float(self.time[-1]):.4g}" if len(self.time) else ""
        return f"Trajectory({len(self.time)} times{until}; layers {shapes})"

    @property
    @outside_autocast
    def product(self) -> Float[Tensor, "t *runs m d"]:
        """The end-to-end matrix P = W_L ... W_1 at every recorded time."""
        return end_to_end(self.weights)

    @property
    def singular_values(self) -> Float[Tensor, "t *runs k"]:
        """Singular values of P at every recorded time, descending."""
        return singular_values(self.product)

    @property
    def imbalance_drift(self) -> float | None:
        """How far the conserved C of App. B.5 moved, relative to the layers' Gram matrices; None for one layer."""
        return imbalance_drift(self.weights)

    def final(self) -> Weights:
        """Return the weights at the last recorded time, one (*runs, out, in) tensor per layer."""
        return tuple(w[-1] for w in self.weights)

    def save(self, path: str | Path) -> None:
        """Write the whole record to one .npz file; a failed write leaves no file behind.

        Args:
            path: The file; one that exists is replaced.

        Raises:
            CannotWrite: When it cannot be written; it is an OSError.
        """
        tensors = {"time": self.time, "loss": self.loss}
        tensors |= {f"weight_{i}": w for i, w in enumerate(self.weights, 1)}
        tensors |= {f"bias_{i}": b for i, b in enumerate(self.biases, 1)}
        tensors |= {"predictor": self.predictor} if self.predictor is not None else {}
        tensors |= {f"target_{i}": w for i, w in enumerate(self.target, 1)}
        tensors |= {f"{STATISTIC}{n}": as_tensor(v, f"the statistic {n}") for n, v in self.statistics.items()}
        arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        meta = np.array(json.dumps(self.meta))
        write_whole(Path(path), lambda file: np.savez(file, meta=meta, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record written by `save`; pickled content is refused.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            ValueError: For any other file.
            OSError: For a file that cannot be read.

        Examples:
            >>> path = Trajectory(torch.tensor([0.0, 1.0]), (torch.ones(2, 3, 3),), torch.zeros(2))
            >>> path.save("path.npz")
            >>> torch.equal(Trajectory.load("path.npz").product, path.product)
            True
        """
        try:
            arrays = load_npz(Path(path))
            meta = json.loads(str(arrays.pop("meta")))
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            weights, biases, target = (_layers(tensors, kind) for kind in ("weight", "bias", "target"))
            predictor = tensors.get("predictor")
            state = target if predictor is None else (predictor, *target)
            if not weights:
                raise ValueError("it holds no weights")
            moments = tensors["time"]
            statistics = {n.removeprefix(STATISTIC): v for n, v in tensors.items() if n.startswith(STATISTIC)}
            if moments.ndim != 1 or any(p.ndim < 2 or len(p) != len(moments) for p in (*weights, *biases, *state)):
                raise ValueError("its states are not one per moment")
            if any(v.ndim < 1 or len(v) != len(moments) for v in statistics.values()):
                raise ValueError("its statistics are not one per moment")
            if not isinstance(meta, dict):
                raise ValueError("its meta is no table")
            return cls(moments, weights, tensors["loss"], biases, meta, statistics, predictor, target)
        except OSError:
            raise
        except Exception as error:  # a damaged zip can fail in any way
            raise ValueError(f"{path} is not a saved trajectory ({error})") from error


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a run.

    Attributes:
        trajectory: What was recorded until then.

    Examples:
        >>> path = Trajectory(torch.tensor([0.0, 1.0]), (torch.ones(2, 3, 3),), torch.zeros(2))
        >>> print(Interrupted(path))  # a KeyboardInterrupt, so that `except Exception` does not catch it
        interrupted at t = 1
    """

    def __init__(self, trajectory: Trajectory) -> None:
        """Keep the partial record."""
        super().__init__(
            f"interrupted at t = {float(trajectory.time[-1]):.6g}" if len(trajectory.time) else "interrupted"
        )
        self.trajectory = trajectory


def parameter_fields(parameters: Sequence[Tensor], depth: int) -> dict[str, Any]:
    """The fields of a Trajectory that hold its parameters.

    Args:
        parameters: Paths (t, *runs, ...): of `depth` weight matrices, then of one bias per layer, or of a predictor and
            the layers of its target, which are matrices.
        depth: Number of layers.

    Returns:
        Weights, biases, predictor and target by name.
    """
    weights, others = tuple(parameters[:depth]), tuple(parameters[depth:])
    if not others or others[0].ndim < weights[0].ndim:
        return {"weights": weights, "biases": others}
    return {"weights": weights, "predictor": others[0], "target": others[1:]}


def parameters_of(path: Trajectory) -> tuple[Tensor, ...]:
    """All parameters of a path, in the order of `parameter_fields`."""
    state = () if path.predictor is None else (path.predictor, *path.target)
    return (*path.weights, *path.biases, *state)


class TrainingFailed(ValueError):
    """A step of a training that could not be taken, as by a schedule or a stream of batches that ends too early.

    Attributes:
        step: The first step that could not be taken.
        trajectory: What was recorded before; None until `train` adds it.

    Examples:
        >>> print(TrainingFailed(3, "the schedule ended"))
        step 3 could not be taken: the schedule ended
    """

    def __init__(self, step: int, reason: str, trajectory: Trajectory | None = None) -> None:
        """Write the message."""
        super().__init__(f"step {step} could not be taken: {reason}")
        self.step, self.reason, self.trajectory = step, reason, trajectory

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow pickling, so that worker processes can raise it."""
        return type(self), (self.step, self.reason, self.trajectory)


def _layers(tensors: dict[str, Tensor], kind: str) -> tuple[Tensor, ...]:
    count = sum(name.startswith(f"{kind}_") for name in tensors)
    return tuple(tensors[f"{kind}_{i}"] for i in range(1, count + 1))
