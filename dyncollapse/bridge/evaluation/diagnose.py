"""Diagnose representation and embedding together, and measure the alignment of the last layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from dyncollapse.bridge.evaluation.depth import StageRank
from dyncollapse.bridge.evaluation.embed import Embedded
from dyncollapse.bridge.evaluation.page import spaces_page
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.models.projectors import Diagonal, Fixed
from dyncollapse.diagnostics.embedding_remedies import space_remedies
from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.remedies import Remedy
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.sentences import sentences_of
from dyncollapse.runtime.page.render import render
from dyncollapse.theory.alignment import AlignmentReport, alignment_report

# Layers that keep the rank of their input in evaluation mode.
AFFINE = (nn.BatchNorm1d, nn.Identity, nn.Dropout)


class DiagnoseOptions(TypedDict, total=False):
    """Options of `dyncollapse.diagnose` that `diagnose_spaces` passes on."""

    loss: str | None
    temperature: float | None
    svd: bool
    fast: bool
    sample: int
    seed: int


@dataclass(frozen=True, eq=False)
class Adjacent:
    """The alignment of two successive layers.

    Attributes:
        first: Name of the lower layer.
        second: Name of the upper layer.
        between: What is between them (norms, activations), in words. The theory is of linear layers with nothing
            between.
        alignment: How far the left singular vectors of the lower matrix agree with the right ones of the upper.

    Examples:
        >>> from dyncollapse.bridge import build_encoder, resolve
        >>> layers = adjacent_layers(build_encoder(resolve({"data": "digits"}), channels=1))
        >>> layers[1].first, layers[1].second, layers[1].between
        ('projector.0', 'projector.3', 'BatchNorm1d, ReLU')
    """

    first: str
    second: str
    between: str
    alignment: AlignmentReport

    def as_values(self) -> dict[str, object]:
        """The names and measures as plain JSON values."""
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
        reports: A report by the name of each embedded space.
        layers: The alignment of each pair of successive layers.
        assumptions: Sentences on what another library's file does not say and was assumed.
        depth: The effective rank after each stage; empty if it was not measured.

    Examples:
        >>> from dyncollapse import diagnose
        >>> r = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> r[:, 3] = r[:, 0]
        >>> diagnosed = DiagnosedSpaces({"representation": diagnose(r)}, layers=[])
        >>> diagnosed.reports["representation"].collapsed
        1
    """

    reports: dict[str, EmbeddingReport]
    layers: list[Adjacent]
    assumptions: tuple[str, ...] = ()
    depth: tuple[StageRank, ...] = ()

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What to try, and what would tell open causes apart, from both spaces together."""
        reports = self.reports.items()
        return space_remedies(
            {name: one.verdict for name, one in reports}, {name: one.remedies for name, one in reports}
        )

    def as_values(self) -> dict[str, object]:
        """The whole diagnosis as plain JSON values."""
        remedies = [one.as_values() for one in self.remedies]
        spaces = {space: report.as_values() for space, report in self.reports.items()}
        layers = [layer.as_values() for layer in self.layers]
        depth = [rank.as_values() for rank in self.depth]
        assumptions = list(self.assumptions)
        return {"spaces": spaces, "layers": layers, "depth": depth, "assumptions": assumptions, "remedies": remedies}

    def remarks(self) -> list[str]:
        """Say what collapsed means in each space, and how augmentation compares with data there.

        Returns:
            Sentences, each of which begins with the name of its space.
        """
        return [f"{space}: {text}" for space, report in self.reports.items() for text in sentences_of(report)]

    def to_html(self) -> str:
        """Write the diagnosis as the page that `dyncollapse bridge diagnose` saves as report.html.

        Returns:
            One self-contained page: what collapsed in each space, pictures, tables and cautions.
        """
        return render(spaces_page(self.as_values(), self.remarks()))


def diagnose_spaces(
    embedded: Embedded,
    encoder: Encoder,
    views: str,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Unpack[DiagnoseOptions],
) -> DiagnosedSpaces:
    """Diagnose every embedded space, and measure the alignment of the encoder's last layers.

    If the projector is a single linear layer, the embedding's report takes the representation as that layer's inputs:
    these show why a dimension collapsed, even if its variance in the embedding is below rounding. For other projectors
    the report takes the width of the narrowest input of the last linear layers, which bounds the embedding's rank.

    Args:
        embedded: Rows of both spaces, (n, d) and (n, m), from `embed`.
        encoder: The encoder that computed them.
        views: "one-sided" or "two-sided", as given to `embed`.
        progress: Called with the name of the step, rows done, and rows in all.
        **options: `loss`, `temperature`, `svd`, `fast`, `sample` and `seed` of `dyncollapse.diagnose`.

    Returns:
        A report on each space, and the alignment of layers.

    Raises:
        ValueError: If rows are not finite, or if there are fewer than two.

    References:
        Jing et al. (2022), arXiv:2110.09348, Sections 3 and 6.1.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import build_encoder, embed, open_data, resolve
        >>> from dyncollapse.bridge.evaluation.load import from_recipe
        >>> recipe = resolve({"data": "digits", "projector": "linear"})
        >>> encoder, images = build_encoder(recipe, channels=1), open_data("digits").train.take(torch.arange(200))
        >>> embedded = embed(from_recipe(encoder, recipe, 1, Path("untrained")), images, Path("."), views="two-sided")
        >>> diagnosed = diagnose_spaces(embedded, encoder, "two-sided")
        >>> {space: report.dim for space, report in diagnosed.reports.items()}
        {'representation': 128, 'embedding': 64}
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
    """Whether a projector is a single linear layer."""
    parts = [part for part in projector.modules() if not list(part.children())]
    return len(parts) == 1 and isinstance(parts[0], nn.Linear)


def narrowest_input(projector: nn.Module) -> int | None:
    """The narrowest input of a projector's last linear layers: a bound on the rank of its outputs.

    Args:
        projector: Any projector.

    Returns:
        The fewest inputs of any linear layer after the last nonlinearity; None if the projector does not end in one.
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
    """Measure the alignment of each pair of successive layers, from the backbone's last convolution on.

    A convolution is taken as a matrix: output channels by the inputs that each output reads.

    Args:
        encoder: Backbone and projector.

    Returns:
        The alignment of each pair of layers whose shapes fit together.

    References:
        Jing et al. (2022), arXiv:2110.09348, Section 6.1.

    Examples:
        >>> from dyncollapse.bridge import build_encoder, resolve
        >>> encoder = build_encoder(resolve({"data": "digits", "projector": "linear"}), channels=1)
        >>> [(pair.first, pair.second) for pair in adjacent_layers(encoder)]
        [('backbone.layer4.0.conv2', 'projector')]
    """
    parts = encoder.backbone.named_modules()
    convolutions = [(n, p) for n, p in parts if isinstance(p, nn.Conv2d) and "downsample" not in n]
    last: tuple[str, Tensor] | None = None
    inside: list[str] = []
    if convolutions:
        name, part = convolutions[-1]
        last, inside = (f"backbone.{name}", part.weight.flatten(1)), ["the rest of the backbone"]
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
