"""Which tensors of a file are the projector: the candidates beside the backbone, and what is left out for doubt."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from dyncollapse.bridge.models.foreign_names import below, some, without_wrappers
from dyncollapse.bridge.models.foreign_rows import ACTIVATIONS, LAST, Head, NotARow, Reading, Row, build_head, read_row
from dyncollapse.runtime.files import printable

# Names of projectors, the surest first.
WORDS = (
    "projector",
    "projection_head",
    "projection",
    "proj_head",
    "head",
    "heads",
    "neck",
    "g",
    "mlp",
    "fc",
)
# One linear layer under such a name is a classifier more often than a projector.
CLASSIFIERS = ("head", "heads", "fc", "classifier", "linear", "online_head", "online_classifier")
MOST_TOLD = 3  # candidates that a message lists


@dataclass(frozen=True)
class Asked:
    """What the user says of the projector: nothing at first."""

    prefix: str | None = None
    activation: str | None = None
    last: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not known."""
        for option, value, known in (("activation", self.activation, ACTIVATIONS), ("last", self.last, LAST)):
            if value is not None and value not in known:
                raise ValueError(f"--projector-{option} is {value!r}; choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Source:
    """A library's projectors: where they are, what else is in its files, and what stands between their layers."""

    name: str
    path: str
    backbone: str = ""
    beside: str = ""
    activation: str = "relu"


# Read in the sources of each: facebookresearch/dino, lightly 1.5, lightning-bolts, MMSelfSup 1.0, VISSL, MoCo, MoCo v3,
# SimSiam, leftthomas/SimCLR, solo-learn, DirectCLR, Barlow Twins, VICReg, Spijkervet/SimCLR, SwAV, SupContrast and
# sthalles/SimCLR.
SOURCES = (
    Source("DINO's head", r"(\w*_)?head(_\w+)?\.mlp", activation="gelu"),
    Source("lightly's MSN", r"\w*head\w*\.layers", beside="anchor_projection_head.", activation="gelu"),
    Source("every head of lightly except DINO's and MSN's (gelu)", r"\w*head\w*\.layers"),
    Source("lightning-bolts' SimCLR", r"projection\.model"),
    Source("every neck of MMSelfSup", r"neck(\.\w+)?"),
    Source("VISSL's SimCLR", r"heads"),
    Source("MoCo v2", r"encoder_[qk]\.fc"),
    Source("MoCo v3", r"(base|momentum)_encoder\.(fc|head)"),
    Source("SimSiam", r"encoder\.fc", beside="predictor."),
    Source("leftthomas' SimCLR", r"g", backbone=r"f\."),
    Source("every method of solo-learn except VIbCReg (gelu)", r"projector", beside="classifier.weight"),
    Source("DirectCLR's SimCLR, Barlow Twins and VICReg", r"projector", backbone=r"backbone\."),
    Source("Spijkervet's SimCLR", r"projector", backbone=r"encoder\."),
    Source("SwAV", r"projection_head", beside="prototypes."),
    Source("SupContrast", r"head", backbone=r"encoder\."),
    Source("sthalles' SimCLR", r"backbone\.fc"),
)


def find_head(tensors: Mapping[str, Tensor], prefix: str, dim: int, asked: Asked) -> tuple[Head | None, list[str]]:
    """The projector behind a backbone where one is sure enough, and sentences on what was left out.

    Args:
        tensors: All that is in the file beside the backbone, by name.
        prefix: What stands before the backbone's names.
        dim: Dimension of the representation.
        asked: What the user says of the projector.

    Raises:
        ValueError: Where a projector that the user names is not there, or is no row of linear layers and norms.
    """
    if asked.prefix is not None:
        return _named(tensors, prefix, dim, asked), []
    heads: list[Head] = []
    left_out: list[str] = []
    words = dict(_candidates(prefix))
    for path, own in below(tensors, words).items():
        try:
            row = read_row(path, own)
            head = build_head(row, dim, _reading(row, tensors, prefix, asked))
        except NotARow as reason:
            left_out.append(f"{printable(path)} is not understood as a projector: {reason}.")
            continue
        sure = words[path] not in CLASSIFIERS if row.lone else words[path] in WORDS
        if sure and not heads:
            heads.append(head)
        else:
            left_out.append(_said_of_other(row, head, dim))
    chosen = heads[0] if heads else None
    _refuse_unused(chosen, asked)
    return chosen, left_out[:MOST_TOLD]


def _said_of_other(row: Row, head: Head, dim: int) -> str:
    """What is said of tensors that may be a projector, and are not taken for it."""
    path = printable(row.path)
    what = f"{path} ({head.layers}) is left out"
    if row.lone:
        what = f"{path}, one linear layer from {dim} to {row.width} dimensions, is left out: it may be a classifier"
    return f"{what}; if it is the projector, give --projector-prefix {path}."


def _refuse_unused(head: Head | None, asked: Asked) -> None:
    """Refuse options on a projector that change nothing."""
    if head is None and (asked.activation or asked.last):
        option = f"--projector-{'activation' if asked.activation else 'last'}"
        raise ValueError(f"{option} is given, but no projector is understood; name it by --projector-prefix")
    if head is not None and asked.activation and not head.activated:
        raise ValueError(
            f"--projector-activation is {asked.activation}, but there is no place for one in {printable(head.path)} "
            f"({head.layers}); leave it out"
        )


def _candidates(prefix: str) -> Iterator[tuple[str, str]]:
    """Paths at which projectors may be, and their words: beside the backbone, or in the place of its classifier."""
    base = prefix.rstrip(".")
    parent, _, name = base.rpartition(".")
    grand = parent.rpartition(".")[0]
    # A teacher_backbone has a teacher_head, a backbone_momentum a projection_head_momentum.
    own = re.fullmatch(r"(\w+_)?(?:backbone|encoder)(_\w+)?", name)
    forms = ["{}"] if own is None or not any(own.groups()) else [f"{own[1] or ''}{{}}{own[2] or ''}", "{}"]
    seen = set()
    for form in forms:
        for word in dict.fromkeys((*WORDS, *CLASSIFIERS)):
            for place in (parent, grand, base):
                path = f"{place}.{form.format(word)}" if place else form.format(word)
                if path not in seen:
                    seen.add(path)
                    yield path, word


def _reading(row: Row, tensors: Mapping[str, Tensor], prefix: str, asked: Asked) -> Reading:
    """What stands between a row's layers: what the user says, or what the library has whose names these are."""
    if asked.activation:
        return Reading(asked.activation, True, None, asked.last)
    if row.dino:
        return Reading(SOURCES[0].activation, False, SOURCES[0].name, asked.last)
    for source in SOURCES:
        beside = not source.beside or any(f".{source.beside}" in f".{name}" for name in tensors)
        ends = re.search(rf"(^|\.){source.path}$", row.path) and re.search(rf"(^|\.){source.backbone}$", prefix)
        if beside and ends:
            return Reading(source.activation, False, source.name, asked.last)
    return Reading(last=asked.last)


def _named(tensors: Mapping[str, Tensor], prefix: str, dim: int, asked: Asked) -> Head:
    """The projector that the user names. Raises ValueError where it is not there, or not understood."""
    assert asked.prefix is not None
    wanted = without_wrappers(asked.prefix.strip("."))
    told = f"--projector-prefix is {printable(asked.prefix)}"
    base = prefix.rstrip(".")
    near = [f"{place}.{wanted}" if place else wanted for place in (_parent(base), _parent(_parent(base)), base)]
    rows = dict([*below(tensors, near).items()][:1]) if wanted else {}
    if not rows and wanted:
        ends = ((name, f".{name}".find(f".{wanted}.")) for name in tensors)
        rows = below(tensors, sorted({name[: end + len(wanted)] for name, end in ends if end >= 0}))
    if not rows:
        raise ValueError(f"{told}, which begins no name beside the backbone; names there are like {some(tensors)}")
    if len(rows) > 1:
        raise ValueError(f"{told}, which fits {some(rows)}; give the whole of one")
    ((path, own),) = rows.items()
    try:
        row = read_row(path, own)
        head = build_head(row, dim, _reading(row, tensors, prefix, asked))
    except NotARow as reason:
        raise ValueError(f"{told}, which is not understood as a projector: {reason}") from None
    _refuse_unused(head, asked)
    return head


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
