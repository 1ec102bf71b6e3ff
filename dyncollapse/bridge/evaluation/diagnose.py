"""One diagnosis of both spaces: what the projector makes of a representation, and whether its layers are aligned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dyncollapse.bridge.evaluation.embed import Embedded
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.models.projectors import Diagonal, Fixed
from dyncollapse.diagnostics.monitor import diagnose
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.theory.alignment import AlignmentReport, alignment_report

# What does not change the rank of what it passes on, in evaluation mode.
AFFINE = (nn.BatchNorm1d, nn.Identity, nn.Dropout)


@dataclass(frozen=True, eq=False)
class Adjacent:
    """Two layers in a row, as matrices, and what stands between them, which the theory of linear layers has not."""

    first: str
    second: str
    between: str
    alignment: AlignmentReport

    def as_values(self) -> dict[str, Any]:
        """What is told of it, as plain JSON values."""
        found = self.alignment
        return {
            "first": self.first,
            "second": self.second,
            "between": self.between,
            "pattern": found.pattern,
            "alignment": found.alignment,
            "permuted_alignment": found.permuted_alignment,
            "groups": len(found.blocks),
            "imbalance_norm": found.imbalance_norm,
        }


@dataclass(frozen=True, eq=False)
class DiagnosedSpaces:
    """Reports on the spaces that were embedded, and the alignment of each two layers in a row.

    `assumptions` are sentences on what the file of an encoder by others does not say.
    """

    reports: dict[str, EmbeddingReport]
    layers: list[Adjacent]
    assumptions: tuple[str, ...] = ()

    def as_values(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        spaces = {space: report.as_values() for space, report in self.reports.items()}
        layers = [layer.as_values() for layer in self.layers]
        return {"spaces": spaces, "layers": layers, "assumptions": list(self.assumptions)}


def diagnose_spaces(
    embedded: Embedded,
    encoder: Encoder,
    views: str,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Any,
) -> DiagnosedSpaces:
    """`diagnose` of every embedded space, with the other view where there is one.

    Where the projector is one linear map, the embedding's report takes the representation as its layer's inputs, which
    tell why a dimension collapsed even where it is lost in rounding; of other projectors it takes how many units the
    last linear layers read. `options` are `diagnose`'s.
    """
    reports = {}
    for space, (z, *others) in embedded.rows.items():
        settings: dict[str, Any] = {**options, "space": space}
        if space == "embedding" and others and is_linear(encoder.projector) and "representation" in embedded.rows:
            r, r_pos = embedded["representation"]
            settings |= {"inputs": r, "input_positives": r_pos}
        elif space == "embedding":
            settings["input_dim"] = narrowest_input(encoder.projector)
        if others:
            settings["views"] = views
        reports[space] = diagnose(z, others or None, progress=progress, **settings)
    return DiagnosedSpaces(reports, adjacent_layers(encoder), embedded.assumptions)


def is_linear(projector: nn.Module) -> bool:
    """Whether the embedding is a trained matrix times the representation."""
    parts = [part for part in projector.modules() if not list(part.children())]
    return len(parts) == 1 and isinstance(parts[0], nn.Linear)


def narrowest_input(projector: nn.Module) -> int | None:
    """The fewest units that one of the projector's last linear layers reads, which its outputs cannot exceed in rank.

    Counted from its end up to what is not affine; None where it does not end in a matrix.
    """
    found = None
    for part in reversed([part for part in projector.modules() if not list(part.children())]):
        matrix = _matrix(part)
        if matrix is not None:
            found = min(found or matrix.shape[1], matrix.shape[1])
        elif not isinstance(part, AFFINE):
            break
    return found


def adjacent_layers(encoder: Encoder) -> list[Adjacent]:
    """The alignment of each two layers in a row, from the backbone's last convolution on (the paper's Section 6.1).

    A convolution counts as the matrix of its output channels by all that each reads; layers that do not fit together
    are left out.
    """
    parts = encoder.backbone.named_modules()
    convolutions = [(n, p) for n, p in parts if isinstance(p, nn.Conv2d) and "downsample" not in n]
    last: tuple[str, Tensor] | None = None
    inside: list[str] = []
    if convolutions:
        name, part = convolutions[-1]
        last, inside = (f"backbone.{name}", part.weight.flatten(1)), ["what is left of the backbone"]
    found = []
    for name, part in encoder.projector.named_modules(prefix="projector"):
        if list(part.children()):
            continue
        matrix = _matrix(part)
        if matrix is None:
            if not isinstance(part, nn.Identity):
                inside.append(type(part).__name__)
            continue
        if last is not None and len(last[1]) == matrix.shape[1]:
            first, second = (m.detach().to("cpu", torch.float64) for m in (last[1], matrix))
            between = ", ".join(inside) or "nothing"
            found.append(Adjacent(last[0], name, between, alignment_report(first, second)))
        last, inside = (name, matrix), []
    return found


def _matrix(part: nn.Module) -> Tensor | None:
    match part:
        case nn.Linear():
            return part.weight
        case Diagonal():
            return torch.diag(part.gain)
        case Fixed():
            return part.matrix
    return None
