"""What all results have in common: values that JSON takes, and tables for notebooks."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_ROWS = 50  # of a table in a notebook, which must stay readable and small


def plain(values: Any) -> Any:
    """Turn values into those of JSON: mappings, lists, texts, truth values, whole and finite numbers, and None.

    Args:
        values: Any nest of mappings, sequences, numbers, and arrays or scalars of NumPy and PyTorch.

    Returns:
        New dicts and lists; None where a number is infinite or undefined.

    Examples:
        >>> plain({"rho": (1.5, float("nan"))})
        {'rho': [1.5, None]}
    """
    if isinstance(values, Mapping):
        return {str(name): plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if hasattr(values, "tolist"):
        return plain(values.tolist())
    if isinstance(values, float):
        return float(values) if math.isfinite(values) else None
    return str(values) if isinstance(values, str) else values


def html_table(sentences: Sequence[str], rows: Sequence[Mapping[str, Any]], most: int = MOST_ROWS) -> str:
    """Write sentences and rows as HTML, for notebooks.

    Args:
        sentences: Paragraphs above the table.
        rows: Mappings with the same keys.
        most: Rows that are shown; a last line counts the others.

    Returns:
        HTML without anything to load or to run.

    Examples:
        >>> html_table(["One."], [{"x": 0.5}])
        '<p>One.</p><table><thead><tr><th>x</th></tr></thead><tbody><tr><td>0.5</td></tr></tbody></table>'
    """
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    if not rows:
        return text
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(_cell(row[k]))}</td>' for k in rows[0])}</tr>" for row in rows[:most])
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return text + table + (f"<p>... and {len(rows) - most} more rows</p>" if len(rows) > most else "")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
