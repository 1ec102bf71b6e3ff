"""What `dyncollapse diagnose` is asked: files and options, how they are read, and the reports on them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from dyncollapse.diagnostics import embeddings
from dyncollapse.diagnostics.by_labels import ClassReports, diagnose_by
from dyncollapse.diagnostics.label_files import read_labels
from dyncollapse.diagnostics.options import DiagnosisOptions, Tokens
from dyncollapse.diagnostics.readers import described_rows, read_rows
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.shards import diagnose_shards
from dyncollapse.diagnostics.tokens import diagnose_tokens, token_means
from dyncollapse.runtime.command_line import chosen, command_line
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.process import core_share
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.report import versions
from dyncollapse.sweeps.options import WorkerOptions, workers_of

# Bytes of shards from which on processes are worth their start, which takes seconds: a rule of thumb.
WORTH_WORKERS = 2**28


@dataclass(frozen=True)
class Request:
    """What to diagnose, and how: the arguments of `embeddings.diagnose`, with files in place of arrays."""

    file: Path
    positives: tuple[Path, ...]
    inputs: Path | None
    input_positives: Path | None
    key: str | None
    by: Path | None
    tokens: Tokens | None
    options: DiagnosisOptions
    where: WorkerOptions
    logs: Path

    @property
    def sources(self) -> list[Path]:
        """The files that are read."""
        given = (self.file, *self.positives, self.inputs, self.input_positives, self.by)
        return [_file_and_key(path)[0] for path in given if path is not None]

    @property
    def steps(self) -> tuple[str, ...]:
        """The parts of the work that show progress."""
        more = {"inputs": self.inputs, "pairs": self.options.loss, "classes": self.by}
        return ("embeddings", *(name for name, so in more.items() if so))

    def as_config(self) -> dict[str, Any]:
        """The request as plain JSON values, with the versions of the libraries."""
        return {
            "file": str(self.file),
            "positives": [str(path) for path in self.positives],
            "inputs": self.inputs and str(self.inputs),
            "input_positives": self.input_positives and str(self.input_positives),
            "key": self.key,
            "by": self.by and str(self.by),
            "tokens": self.tokens,
            **self.options.as_dict(),
            "versions": versions(),
        }

    def as_command(self) -> str:
        """The command line that makes the same report."""
        return command_line(
            "diagnose",
            self.file,
            positives=list(self.positives),
            inputs=self.inputs,
            input_positives=self.input_positives,
            key=self.key,
            by=self.by,
            tokens=self.tokens,
            **chosen(self.options),
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """The arrays of a request, one row per sample."""

    embeddings: Tensor
    positives: list[Tensor]
    inputs: Tensor | None
    input_positives: Tensor | None


def read(request: Request) -> Rows | None:
    """Read the files of a request; None for a folder of shards, which are read one by one.

    Args:
        request: The request.

    Returns:
        The arrays.

    Raises:
        ValueError: One line, for files that cannot be read and options that exclude each other.
    """
    if request.file.is_dir():
        _check_shards(request)
        return None
    if chosen(request.where):
        name = next(iter(chosen(request.where)))
        raise SettingError(f"`{name}` is for a folder of shards; give one, or leave it out")
    _check_tokens(request)

    def read(path: Path) -> Tensor:
        path, key = _file_and_key(path)
        key = request.key if key is None else key
        return read_rows(path, key) if request.tokens is None else described_rows(path, key, axes=3).load()

    rows = Rows(
        read(request.file),
        [read(path) for path in request.positives],
        None if request.inputs is None else read(request.inputs),
        None if request.input_positives is None else read(request.input_positives),
    )
    for path, view in zip(request.positives, rows.positives, strict=True):
        if view.shape != rows.embeddings.shape:
            _refuse_view(path, tuple(view.shape), request.file, tuple(rows.embeddings.shape))
    return rows


def _refuse_view(path: Path, shape: tuple[int, ...], file: Path, wanted: tuple[int, ...]) -> NoReturn:
    """Name the files of two views that do not belong together, as the library, which has arrays, cannot."""
    same = "both must come from the same layer" if shape[0] == wanted[0] else "give the same samples, in the same order"
    advice = "transpose it" if shape == wanted[::-1] else same
    raise ValueError(f"{unmarked(str(path))} has shape {shape}, and {unmarked(str(file))} {wanted}; {advice}")


def _file_and_key(path: Path) -> tuple[Path, str | None]:
    """The path of FILE or FILE:KEY, and the name of the array if there is one."""
    name, colon, key = str(path).rpartition(":")
    return (Path(name), key) if colon and not path.exists() else (path, None)


def _check_shards(request: Request) -> None:
    """Refuse what takes all rows at once, for a folder of shards."""
    options = request.options
    given = {
        "svd": options.svd,
        "loss": options.loss,
        "compare": options.compare,
        "inputs": request.inputs,
        "by": request.by,
        "tokens": request.tokens,
    }
    if wrong := next((name for name, value in given.items() if value), None):
        shown = unmarked(str(request.file))
        raise SettingError(
            f"`{wrong}` takes all rows at once, but {shown} is a folder of shards; leave it out, or join them"
        )
    for path in request.positives:
        if not path.is_dir():
            raise SettingError(
                f"`positives` {unmarked(str(path))} is no folder; give one with shards of the same names"
            )


def _check_tokens(request: Request) -> None:
    if request.tokens is None:
        return
    if request.inputs:
        raise SettingError("`inputs` are rows, not tokens; leave `inputs` or `tokens` out")
    if request.by is not None and request.tokens != "across-images":
        raise SettingError("`by` takes one row per label; give `tokens` across-images, or leave `by` out")


def report_on(
    request: Request, rows: Rows | None, progress: Callable[[str, float, float], None]
) -> tuple[EmbeddingReport, ClassReports | None]:
    """Diagnose what was read.

    Args:
        request: The request.
        rows: What `read` returned for it.
        progress: Called with the name of the step, the part done and the whole.

    Returns:
        The report, and the reports within each class if they are asked for.
    """
    options = request.options.as_dict()
    if rows is None:
        taken = {name: options[name] for name in ("views", "space", "fast", "sample", "seed", "input_dim")}
        workers = _workers(request)
        report = diagnose_shards(
            request.file, request.positives, key=request.key, workers=workers, progress=progress, **taken
        )
        return report, None
    z, positives = rows.embeddings, list(rows.positives) or None
    if request.by is not None:
        path, key = _file_and_key(request.by)
        labels = read_labels(path, key)
        if request.tokens is not None:
            z, positives = token_means(z), [token_means(view) for view in rows.positives] or None
        inputs = {"inputs": rows.inputs, "input_positives": rows.input_positives}
        classes = diagnose_by(z, labels, positives, progress=progress, **inputs, **options)
        return classes.whole, classes
    if request.tokens is not None:
        return diagnose_tokens(z, request.tokens, positives, progress=progress, **options), None
    report = embeddings.diagnose(
        z, positives, inputs=rows.inputs, input_positives=rows.input_positives, **options, progress=progress
    )
    return report, None


def _workers(request: Request) -> Workers | None:
    """The workers for shards; None if this process alone is quicker."""
    where, paths = request.where, [path for path in request.file.iterdir() if path.is_file()]
    if where.executor == "local":
        size = sum(path.stat().st_size for path in paths)
        count = where.workers or (1 if size < WORTH_WORKERS else min(core_share(1), len(paths)))
        if count == 1:
            return None
    return workers_of(where, 1, request.logs)
