"""Statistics of the weights, recorded along a path where the whole state is more than is needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.conversion import as_tensor
from dyncollapse.model.networks import Weights

# A function of the weights that returns a table of statistics, or a table of functions.
Record = Callable[[Weights], Mapping[str, Any]] | Mapping[str, Callable[[Weights], Any]]

LONGEST_NAME = 100  # characters: names stand in the file that `Trajectory.save` writes


class Recorder:
    """What a path records beside its weights: the same statistics, of the same shapes, at every moment.

    Examples:
        >>> recorder = Recorder({"norm": lambda weights: weights[0].norm(dim=(-2, -1))}, runs=(2,))
        >>> rows = [recorder.at((scale * torch.ones(2, 3, 3),)) for scale in (1.0, 2.0)]
        >>> stacked(rows)["norm"].tolist()
        [[3.0, 3.0], [6.0, 6.0]]
    """

    def __init__(self, record: Record | None, runs: Sequence[int]) -> None:
        """Keep what is asked for; ValueError for anything but a function, a table of functions, or None."""
        functions = record.values() if isinstance(record, Mapping) else [] if record is None else [record]
        if not all(map(callable, functions)):
            raise ValueError(
                f"record is of type {type(record).__name__}; give a function of the weights that returns a dict of "
                "tensors, or a dict of functions of the weights"
            )
        self._record, self._runs = record, tuple(runs)
        self._first: dict[str, Tensor] | None = None

    def at(self, weights: Weights) -> dict[str, Tensor]:
        """Statistics of one state.

        Args:
            weights: One tensor (*runs, out, in) per layer; the functions get copies.

        Returns:
            One tensor (*runs, ...) per name.

        Raises:
            ValueError: For a value that is no array of real numbers, that does not begin with the runs, or whose names,
                shape or type differ from those of the first state.
        """
        if self._record is None:
            return {}
        copies = tuple(w.detach().clone() for w in weights)
        if isinstance(self._record, Mapping):
            made: Any = {name: function(copies) for name, function in self._record.items()}
        elif not isinstance(made := self._record(copies), Mapping):
            raise ValueError(f"record returned a {type(made).__name__}; it must return a dict of tensors by name")
        values = {_named(name): as_tensor(value, f"the statistic {name}") for name, value in made.items()}
        self._check(values)
        # NumPy, in whose files records are kept, has no bfloat16.
        return {name: (v.float() if v.dtype is torch.bfloat16 else v).detach().clone() for name, v in values.items()}

    def _check(self, values: dict[str, Tensor]) -> None:
        first = self._first = self._first or values
        for name, value in values.items():
            if value.shape[: len(self._runs)] != self._runs:
                raise ValueError(
                    f"the statistic {name} has shape {tuple(value.shape)}; it must begin with the runs, {self._runs}"
                )
        kinds, before = ({name: (tuple(v.shape), v.dtype) for name, v in some.items()} for some in (values, first))
        if kinds != before:
            raise ValueError(
                f"record returned {_listed(kinds)}, and {_listed(before)} at the first state; names, shapes and types "
                "must stay the same"
            )


def with_statistics(path: Trajectory, record: Record | None) -> Trajectory:
    """Return a flow's record with the statistics of every state that it holds.

    Args:
        path: The record.
        record: What to record, or None.

    Returns:
        The same record with `statistics`.

    Raises:
        ValueError: As `Recorder.at`.
    """
    if record is None or not len(path.time):
        return path
    recorder = Recorder(record, path.weights[0].shape[1:-2])
    rows = [recorder.at(tuple(w[i] for w in path.weights)) for i in range(len(path.time))]
    return replace(path, statistics=stacked(rows))


def stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Statistics (t, *runs, ...) by name, from those of each moment."""
    return {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _named(name: Any) -> str:
    fine = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and not {*"/\\"} & {*name}
    if not fine:
        raise ValueError(
            f"{str(name)[:LONGEST_NAME]!r} is no name for a statistic; give 1 to {LONGEST_NAME} printable characters "
            "without slashes"
        )
    return name


def _listed(kinds: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{name} {shape} of {dtype}" for name, (shape, dtype) in kinds.items()) or "nothing"
