"""What the points of a sweep found, as rows, as a CSV or Parquet file and over the axes of their grid."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dyncollapse.runtime.extras import as_frame, need
from dyncollapse.runtime.files import unmarked, write_bytes, write_whole
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import KINDS, NOT_HASHED

if TYPE_CHECKING:
    import pandas
    import xarray

# Between the name of a dynamics and a singular value's rank.
SIGMA = "_sigma_"


def as_row(name: str, configuration: Configuration, report: Mapping[str, Any]) -> dict[str, Any]:
    """A point's settings and results as one flat row.

    `collapse_threshold` is of the augmentation, in closed form; `at_threshold` counts the modes for which it is exactly
    that, up to round-off.
    """
    row = {"point": name} | {key: value for key, value in vars(configuration).items() if key not in NOT_HASHED}
    verdict = report["verdict"]
    row |= {"dynamics": ",".join(configuration.dynamics), "status": report["status"]}
    row |= {key: verdict[key] for key in ("collapsed", "mechanism")}
    row |= {"collapsed_below": verdict["threshold"], "collapse_threshold": report["prediction"]["threshold"]}
    row["at_threshold"] = report["prediction"].get("at_threshold")  # runs of earlier versions do not say
    for other in ("sgd_vs_flow", "sgd_vs_population"):
        row[other] = (report[other] or {}).get("relative_distance")
    for dynamics, found in report["dynamics"].items():
        row |= {f"{dynamics}_{key}": found[key] for key in ("loss", "time", "seconds")}
        row |= {f"{dynamics}{SIGMA}{i}": value for i, value in enumerate(found["product_singular_values"], 1)}
    return row


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column that any row has, singular values last and in order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    ranks = {name: (parts[0], int(parts[1])) for name in names if len(parts := name.split(SIGMA)) > 1}
    return [name for name in names if name not in ranks] + sorted(ranks, key=ranks.__getitem__)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """The rows as a data frame; what a row does not have is NaN."""
    return as_frame(rows, columns_of(rows) or ["point"])


def write_csv(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """Write the rows with a header; what a row does not have is empty.

    By the standard library, which is always there: pandas would turn whole numbers with a gap in their column into
    fractions.
    """
    writer = csv.DictWriter(file, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_table(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write a .csv or .parquet file, whole or not at all. Raises SettingError, one line, for other names."""
    check_table(out)
    if out.suffix == ".csv":
        text = io.StringIO()
        write_csv(rows, text)
        write_bytes(out, text.getvalue().encode())
        return
    import pyarrow
    from pyarrow import parquet

    # Not by way of pandas, in which a whole number beside a gap becomes a fraction.
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns_of(rows)})
    write_whole(out, lambda file: parquet.write_table(table, file))


def check_table(out: Path) -> None:
    """Raise SettingError, one line, where `write_table` would: nothing is read for what cannot be written."""
    given = f"`out` {unmarked(str(out))}"
    if out.suffix not in (".csv", ".parquet"):
        raise SettingError(f"{given} is neither .csv nor .parquet; name one of these")
    if out.suffix == ".parquet":
        need("pyarrow", "tables", f"{given} needs pyarrow")


def as_dataset(
    points: Mapping[str, Configuration], axes: Mapping[str, Sequence[Any]], rows: Sequence[Mapping[str, Any]]
) -> "xarray.Dataset":
    """Results over the axes, and singular values over `rank` besides; what is missing is NaN, settings are attributes.

    Raises ValueError unless the points are every combination of the axes' values.
    """
    need("xarray", "tables", "to_xarray needs xarray")
    import xarray

    shape = tuple(map(len, axes.values()))
    if math.prod(shape) != len(points):
        names = ", ".join(f"{len(values)} {name}" for name, values in axes.items())
        raise ValueError(f"{len(points)} points are no full grid of {names}; use table(), which needs none")
    places = {name: [axes[axis].index(getattr(c, axis)) for axis in axes] for name, c in points.items()}
    order = sorted(points, key=places.__getitem__)
    settings = vars(next(iter(points.values())))
    frame = to_frame(rows).set_index("point").reindex(order).drop(columns=list(settings), errors="ignore")
    data: dict[str, Any] = {}
    for name in [column for column in frame if SIGMA not in column]:
        cells = frame[name]
        cells = cells.fillna("").astype(object) if any(isinstance(cell, str) for cell in cells) else cells.astype(float)
        data[name] = (tuple(axes), cells.to_numpy().reshape(shape))
    coordinates = {name: list(values) for name, values in axes.items()}
    for dynamics in dict.fromkeys(name.split(SIGMA)[0] for name in frame if SIGMA in name):
        ranked = frame.filter(regex=f"^{dynamics}{SIGMA}")
        data[f"{dynamics}_sigma"] = ((*axes, "rank"), ranked.to_numpy(float).reshape(*shape, -1))
        coordinates["rank"] = list(range(1, ranked.shape[1] + 1))
    return xarray.Dataset(data, coordinates, _fixed(points.values()))


def _fixed(configurations: Iterable[Configuration]) -> dict[str, Any]:
    """The settings that all have in common, without those that are None."""
    columns = {key: {getattr(c, key) for c in configurations} for key in KINDS if key not in NOT_HASHED}
    fixed = {key: values.pop() for key, values in columns.items() if len(values) == 1}
    plain = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in fixed.items()}
    return {key: value for key, value in plain.items() if value is not None}
