"""Options of a diagnosis, shared by `Monitor`, `diagnose` and the command line."""

from dataclasses import asdict
from typing import Any, Literal

from dyncollapse.model.choices import AUTHORS_TEMPERATURE, Views, Weighing
from dyncollapse.runtime.records import LARGE, MOST_SEED, SMALL, Number, Text, Whole, record, setting

# How tokens of images are taken: see `diagnose_tokens`.
Tokens = Literal["per-image", "all", "across-images"]
MOST_ROWS, WIDEST = 10**9, 10**6


@record
class DiagnosisOptions:
    """Options of a diagnosis of embeddings.

    Raises:
        SettingError: One line for an option of another type or out of range.

    Examples:
        >>> DiagnosisOptions(sample=100).views
        'two-sided'
        >>> DiagnosisOptions(sample=1)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: sample is 1; it must be between 2 and 1e9 rows
    """

    views: Views = setting(
        "two-sided",
        "Which views are augmented: one-sided, all but the first; two-sided, all.",
        group="views",
        unset="two-sided, as SimCLR trains",
    )
    loss: Weighing | None = setting(None, "Weight negatives by this loss's softmax.", group="views", unset="uniform")
    temperature: Number | None = setting(
        None, "Temperature of dot and ntxent.", group="views", low=SMALL, high=LARGE, unset=f"{AUTHORS_TEMPERATURE}"
    )
    input_dim: Whole | None = setting(
        None,
        "Number of units that the last linear layer reads, if `inputs` are not at hand: no more dimensions can vary.",
        group="inputs",
        unit="units",
        low=1,
        high=WIDEST,
    )
    space: Text = setting(
        "embedding", "Where the embeddings were taken: a name for the report, which changes no number.", group="report"
    )
    compare: bool = setting(
        False,
        "Give RankMe, LiDAR and alpha-ReQ as other libraries and papers compute them, too, from all rows in float64.",
        group="report",
    )
    svd: bool = setting(
        False,
        "Compute the spectrum by an SVD of the whole matrix in float64, which keeps digits of small eigenvalues.",
        group="precision",
    )
    fast: bool = setting(
        False,
        "Compute products in float32: about twice as fast, with a higher noise floor (reported).",
        group="precision",
    )
    sample: Whole = setting(
        4096, "Rows kept for intervals and warnings.", group="precision", unit="rows", low=2, high=MOST_ROWS
    )
    seed: Whole = setting(0, "Seed of the choice of these rows.", group="precision", low=0, high=MOST_SEED)

    def as_dict(self) -> dict[str, Any]:
        """Return all options as plain values for JSON."""
        return asdict(self)
