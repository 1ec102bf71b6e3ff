"""The report on embeddings within each class, beside the report on all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.runtime.extras import as_frame
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    import pandas

# Each class gets a report of its own, with every eigenvalue: ImageNet has 1000 classes.
MOST_CLASSES, MOST_LETTERS = 1000, 100
MOST_NAMED = 8  # classes in a sentence
TOO_FEW = f"fewer than {FEWEST_FOR_ERRORS} samples"
COLUMNS = ("class", "samples", "collapsed", "effective_rank", "mechanism")

Label = int | str


@dataclass(frozen=True, eq=False, repr=False)
class ClassReports:
    """A report on all embeddings, and one within each class.

    Attributes:
        whole: The report on all samples.
        samples: Number of samples of each class, in order of the labels.
        classes: The report within each class that has ten samples or more.

    Examples:
        >>> z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> z[:100, 2] *= 1e-4  # one class lies in a plane
        >>> reports = diagnose_by(z, ["flat"] * 100 + ["round"] * 100)
        >>> [(row["class"], row["collapsed"]) for row in reports.rows()], reports.whole.collapsed
        ([('flat', 1), ('round', 0)], 0)
    """

    whole: EmbeddingReport
    samples: Mapping[Label, int]
    classes: Mapping[Label, EmbeddingReport]

    def __repr__(self) -> str:
        """Return the number of classes and the report on the whole; `rows` has the classes."""
        return f"<{type(self).__name__} of {len(self.samples)} classes: {self.whole!r}>"

    @property
    def sentence(self) -> str:
        """The classes in which more dimensions collapsed than in the whole, as one sentence."""
        more = {name: n for name, one in self.classes.items() if (n := one.collapsed) > self.whole.collapsed}
        if not more:
            return f"No class of {len(self.classes)} has more collapsed dimensions than the whole."
        most = sorted(more, key=lambda name: more[name], reverse=True)
        shown = ", ".join(f"{unmarked(str(name))} ({more[name]})" for name in most[:MOST_NAMED])
        left = f" and {len(more) - MOST_NAMED} more" if len(more) > MOST_NAMED else ""
        verb = "classes has" if len(more) == 1 else "classes have"
        return (
            f"{len(more)} of {len(self.classes)} {verb} more collapsed dimensions than the whole "
            f"({self.whole.collapsed}): {shown}{left}."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per class.

        Returns:
            Rows with class, samples, collapsed, effective_rank and mechanism; of a class with fewer than ten samples
            the numbers are None, and the mechanism says so.
        """
        rows = list[dict[str, Any]]()
        for label, samples in self.samples.items():
            report = self.classes.get(label)
            values = (
                (None, None, TOO_FEW)
                if report is None
                else (report.collapsed, report.measures["effective_rank"], report.verdict.mechanism.value)
            )
            rows.append(dict(zip(COLUMNS, (label, samples, *values), strict=True)))
        return rows

    def as_values(self) -> dict[str, Any]:
        """Return the report on the whole as plain JSON values, with those of the classes under "by".

        Returns:
            The values of `EmbeddingReport.as_values`, and a list "by": for each class its row, and under "report" its
            values, which are None if it has fewer than ten samples. They have no "conventions", which are the whole's.
        """
        by = list[dict[str, Any]]()
        for row in self.rows():
            report = self.classes.get(row["class"])
            values = None if report is None else report.as_values()
            if values is not None:
                del values["conventions"]
            by.append(row | {"report": values})
        return self.whole.as_values() | {"by": by}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per class.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return as_frame(self.rows(), COLUMNS)


def diagnose_by(
    z: Rows,
    labels: Any,
    positives: Any = None,
    *,
    inputs: Rows | None = None,
    input_positives: Rows | None = None,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Any,
) -> ClassReports:
    """Report which dimensions of embeddings collapsed within each class, beside the report on all samples.

    Within a class the covariance is that around the class mean, so that a collapse in one class only is seen, and so is
    one that the differences between classes hide (neural collapse). Each class takes the time of a report on its
    samples, O(n d^2 + d^3).

    Args:
        z: As for `diagnose`.
        labels: The class of each sample (n,): whole numbers, or texts of at most 100 letters, of at most 1000 classes.
        positives: As for `diagnose`.
        inputs: As for `diagnose`.
        input_positives: As for `diagnose`.
        progress: As for `diagnose`; the step of the classes is called "classes".
        **options: Options of `diagnose` but `loss`, whose negatives are of all classes.

    Returns:
        The reports.

    Raises:
        SettingError: As for `diagnose`, and for a `loss`.
        ValueError: As for `diagnose`; for labels that are no whole numbers or short texts, too many classes, and
            another number of labels than of samples. Errors in a class name it.

    Examples:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(90, 2))
        >>> diagnose_by(z, np.arange(90) // 85).rows()[1]
        {'class': 1, 'samples': 5, 'collapsed': None, 'effective_rank': None, 'mechanism': 'fewer than 10 samples'}
    """
    if options.get("loss") is not None:
        raise SettingError("`loss` weights negatives, which are of all classes; leave it out with labels")
    z = as_rows(z)
    places = class_places(labels, len(z))
    others = [] if positives is None else positives if isinstance(positives, list | tuple) else [positives]
    views = [as_rows(view) for view in others]
    pair = [None if one is None else as_rows(one, "inputs") for one in (inputs, input_positives)]
    whole = diagnose(z, views or None, inputs=pair[0], input_positives=pair[1], progress=progress, **options)
    reports = dict[Label, EmbeddingReport]()
    options.pop("compare", None)  # published numbers are of all samples
    for number, (label, rows) in enumerate(places.items(), 1):
        if len(rows) >= FEWEST_FOR_ERRORS:
            x, x_pos = (None if one is None else one[rows.to(one.device)] for one in pair)
            inside, *views_inside = (view[rows.to(view.device)] for view in (z, *views))
            try:
                reports[label] = diagnose(inside, views_inside or None, inputs=x, input_positives=x_pos, **options)
            except ValueError as error:
                raise ValueError(f"class {unmarked(str(label))}: {error}") from error
        if progress:
            progress("classes", number, len(places))
    return ClassReports(whole, {label: len(rows) for label, rows in places.items()}, reports)


def class_places(labels: Any, samples: int) -> dict[Label, Tensor]:
    """Return the numbers of the samples of each class, by its label, in the order of the labels.

    Args:
        labels: As for `diagnose_by`.
        samples: How many there must be.

    Returns:
        Row numbers by label.

    Raises:
        ValueError: As for `diagnose_by`.
    """
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.dtype == object:
        if not all(isinstance(one, str) and len(one) <= MOST_LETTERS for one in array.flat):
            raise ValueError(f"labels hold objects; give whole numbers, or texts of at most {MOST_LETTERS} letters")
        array = array.astype(str)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"labels have shape {array.shape}; give one label per sample")
    if array.dtype.kind == "U" and array.dtype.itemsize > 4 * MOST_LETTERS:
        raise ValueError(f"labels are texts of over {MOST_LETTERS} letters; give shorter names")
    if array.dtype.kind not in "biuU":
        raise ValueError(f"labels are {array.dtype.name}; give whole numbers or texts")
    if len(array) != samples:
        raise ValueError(f"there are {len(array)} labels and {samples} samples; label i must be that of row i")
    names, which = np.unique(array, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"labels have {len(names)} values, and at most {MOST_CLASSES} classes are reported")
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(names)))[:-1]
    numbers = [torch.from_numpy(rows) for rows in np.split(order, ends)]
    as_label: Callable[[Any], Label] = str if array.dtype.kind == "U" else int
    return {as_label(name): rows for name, rows in zip(names, numbers, strict=True)}
