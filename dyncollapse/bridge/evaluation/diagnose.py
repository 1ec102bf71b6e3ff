"""One diagnosis of both spaces: what the projector makes of a representation, and whether its layers are aligned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from dyncollapse.bridge.evaluation.embed import Embedded
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.models.projectors import Diagonal, Fixed
from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.theory.alignment import AlignmentReport, alignment_report

# What does not change the rank of what it passes on, in evaluation mode.
AFFINE = (nn.BatchNorm1d, nn.Identity, nn.Dropout)


class DiagnoseOptions(TypedDict, total=False):
    """What `dyncollapse.diagnose` takes beside rows, views and spaces."""

    loss: str | None
    temperature: float | None
    svd: bool
    fast: bool
    sample: int
    seed: int


@dataclass(frozen=True, eq=False)
class Adjacent:
    """The alignment of two layers in a row.

    Attributes:
        first: Name of the lower layer.
        second: Name of the upper layer.
        between: What stands between them, in words; the theory of linear layers has nothing there.
        alignment: How far the singular vectors of the two matrices agree.
    """

    first: str
    second: str
    between: str
    alignment: AlignmentReport

    def as_values(self) -> dict[str, object]:
        """The measures as plain JSON values."""
        report = self.alignment
        return {
            "first": self.first,
            "second": self.second,
            "between": self.between,
            "pattern": report.pattern,
            "alignment": report.alignment,
            "permuted_alignment": report.permuted_alignment,
            "groups": len(report.blocks),
            "imbalance_norm": report.imbalance_norm,
        }


@dataclass(frozen=True, eq=False)
class DiagnosedSpaces:
    """A diagnosis of an encoder's representation and embedding.

    Attributes:
        reports: One for each space that was embedded.
        layers: The alignment of each two layers in a row.
        assumptions: Sentences on what the file of an encoder by another library does not say.
    """

    reports: dict[str, EmbeddingReport]
    layers: list[Adjacent]
    assumptions: tuple[str, ...] = ()

    def as_values(self) -> dict[str, object]:
        """All of it as plain JSON values."""
        spaces = {space: report.as_values() for space, report in self.reports.items()}
        layers = [layer.as_values() for layer in self.layers]
        return {"spaces": spaces, "layers": layers, "assumptions": list(self.assumptions)}


def diagnose_spaces(
    embedded: Embedded,
    encoder: Encoder,
    views: str,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Unpack[DiagnoseOptions],
) -> DiagnosedSpaces:
    """Diagnose every embedded space, with the other view where there is one.

    Where the projector is one linear map, the representation is the layer's inputs in the embedding's report: they tell
    why a dimension collapsed even where it is lost in rounding. Of other projectors the report takes how many units the
    last linear layers read.

    Args:
        embedded: Rows of both spaces, (n, d) and (n, m), as `embed` returns them.
        encoder: The encoder that they are of.
        views: "one-sided" or "two-sided", as `embed` was given.
        progress: Called with the name of the step, rows done and rows in all.
        **options: `loss`, `temperature`, `svd`, `fast`, `sample` and `seed` of `dyncollapse.diagnose`.

    Returns:
        A report on each space, and the alignment of layers.

    Raises:
        ValueError: For rows that are not finite, and under two rows.
    """
    reports = {}
    for space, (z, *others) in embedded.rows.items():
        inputs: Tensor | None = None
        input_positives: Tensor | None = None
        input_dim: int | None = None
        if space == "embedding" and others and is_linear(encoder.projector) and "representation" in embedded.rows:
            inputs, input_positives = embedded["representation"]
        elif space == "embedding":
            input_dim = narrowest_input(encoder.projector)
        reports[space] = diagnose(
            z,
            others or None,
            inputs=inputs,
            input_positives=input_positives,
            input_dim=input_dim,
            views=views if others else "two-sided",
            space=space,
            progress=progress,
            **options,
        )
    return DiagnosedSpaces(reports, adjacent_layers(encoder), embedded.assumptions)


def is_linear(projector: nn.Module) -> bool:
    """Whether the embedding is a trained matrix times the representation."""
    parts = [part for part in projector.modules() if not list(part.children())]
    return len(parts) == 1 and isinstance(parts[0], nn.Linear)


def narrowest_input(projector: nn.Module) -> int | None:
    """The fewest units that one of the projector's last linear layers reads, which its outputs cannot exceed in rank.

    Counted from its end up to what is not affine; None where it does not end in a matrix.
    """
    fewest = None
    for part in reversed([part for part in projector.modules() if not list(part.children())]):
        matrix = _matrix(part)
        if matrix is not None:
            fewest = min(fewest or matrix.shape[1], matrix.shape[1])
        elif not isinstance(part, AFFINE):
            break
    return fewest


def adjacent_layers(encoder: Encoder) -> list[Adjacent]:
    """Compare each two layers in a row, from the backbone's last convolution on (the paper's Section 6.1).

    A convolution counts as the matrix of its output channels by all that each reads.

    Args:
        encoder: Backbone and projector.

    Returns:
        A comparison of each two layers whose shapes fit together.
    """
    parts = encoder.backbone.named_modules()
    convolutions = [(n, p) for n, p in parts if isinstance(p, nn.Conv2d) and "downsample" not in n]
    last: tuple[str, Tensor] | None = None
    inside: list[str] = []
    if convolutions:
        name, part = convolutions[-1]
        last, inside = (f"backbone.{name}", part.weight.flatten(1)), ["what is left of the backbone"]
    pairs = []
    for name, part in encoder.projector.named_modules(prefix="projector"):
        if list(part.children()):
            continue
        matrix = _matrix(part)
        if matrix is None:
            if not isinstance(part, nn.Identity):
                inside.append(type(part).__name__)
            continue
        if last is not None and len(last[1]) == matrix.shape[1]:
            first, second = (weights.detach().to("cpu", torch.float64) for weights in (last[1], matrix))
            between = ", ".join(inside) or "nothing"
            pairs.append(Adjacent(last[0], name, between, alignment_report(first, second)))
        last, inside = (name, matrix), []
    return pairs


def _matrix(part: nn.Module) -> Tensor | None:
    match part:
        case nn.Linear():
            return part.weight
        case Diagonal():
            return torch.diag(part.gain)
        case Fixed():
            return part.matrix
    return None
