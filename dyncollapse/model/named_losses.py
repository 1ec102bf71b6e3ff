"""The named losses: from a name, its constant and the view convention to a value and to gradients on embeddings."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from dyncollapse.model import coordinate_losses, loss_gradients, losses, moment_losses


class _Named(NamedTuple):
    """A loss, its gradients, whether they take negatives or views, and what they call their constant."""

    value: Callable[..., Tensor]
    gradients: Callable[..., tuple[Tensor, ...]]
    sides: str | None = None
    constant: str | None = None


_NAMED = {
    "infonce": _Named(losses.infonce, loss_gradients.infonce_gradients, "negatives"),
    "dot": _Named(losses.dot_infonce, loss_gradients.dot_gradients, "negatives", "temperature"),
    "ntxent": _Named(losses.ntxent, loss_gradients.ntxent_gradients, None, "temperature"),
    "spectral": _Named(losses.spectral, loss_gradients.spectral_gradients, "negatives"),
    "vcreg": _Named(moment_losses.vcreg, moment_losses.vcreg_gradients, "views", "invariance"),
    "vicreg": _Named(coordinate_losses.vicreg, coordinate_losses.vicreg_gradients, "views", "invariance"),
    "barlow": _Named(moment_losses.barlow, moment_losses.barlow_gradients),
    "barlow-normalised": _Named(coordinate_losses.barlow_normalised, coordinate_losses.barlow_normalised_gradients),
}


def named_value(name: str, constant: float | None, z: Tensor, z_pos: Tensor, views: str) -> Tensor:
    """The loss of every batch of embeddings.

    Args:
        name: One of LOSSES.
        constant: The temperature of dot and ntxent, the weight of the invariance of vcreg and vicreg.
        z: Embeddings of the anchors (*any, n, m).
        z_pos: Embeddings of the positives.
        views: The view convention.

    Returns:
        One loss per batch.
    """
    named = _NAMED[name]
    return named.value(z, z_pos, **_keywords(named, constant, z_pos, views))


def named_gradients(name: str, constant: float | None, z: Tensor, z_pos: Tensor, views: str) -> tuple[Tensor, ...]:
    """Gradients of the loss of every batch with respect to its embeddings.

    Args:
        name: One of LOSSES.
        constant: As in `named_value`.
        z: Embeddings of the anchors (*any, n, m).
        z_pos: Embeddings of the positives.
        views: The view convention.

    Returns:
        Those of z and z_pos and, for two-sided views of a loss with negatives, of these.
    """
    named = _NAMED[name]
    return named.gradients(z, z_pos, **_keywords(named, constant, z_pos, views))


def _keywords(named: _Named, constant: float | None, z_pos: Tensor, views: str) -> dict[str, Any]:
    found: dict[str, Any] = {} if named.constant is None else {named.constant: constant}
    if named.sides == "views":
        found["views"] = views
    elif named.sides == "negatives":
        found["negatives"] = None if views == "one-sided" else z_pos
    return found
