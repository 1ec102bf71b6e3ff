"""The words and the table of the page, as HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dyncollapse.explore.curves import View
from dyncollapse.simulation.prediction import room
from dyncollapse.simulation.sentences import population_limit_sentence, threshold_sentence
from dyncollapse.simulation.verdict import moment
from dyncollapse.theory.limits import check_closed_form

# Columns of the table by name in `View.rows`, with their headings. Those of paths stand where there is such a path.
COLUMNS = {
    "mode": "mode",
    "data_var": "data var",
    "aug_var": "aug var",
    "rho": "rho",
    "start": "p(0)",
    "rest_singular_value": "p at rest",
    "escape_time": "escape time",
    "escape_step": "escape step",
}
PATHS = {
    "closed form": "closed form p(t)",
    "population": "population flow p(t)",
    "flow": "flow p(t)",
    "sgd": "SGD p(t)",
}
END_OF = {"sgd": "SGD", "flow": "the flow", "population": "the population flow"}


def summary(view: View) -> list[str]:
    """Say where the threshold is, when modes escape, and what became of the dimensions.

    Args:
        view: The setting and its records.

    Returns:
        Sentences; the verdict comes last, where there is a record.
    """
    said = [f"Threshold: {_threshold(view)}."]
    times = [mode["escape_time"] for mode in view.prediction["modes"]]
    known = sorted((time, step) for time, step in zip(times, view.escape_steps, strict=True) if time and step)
    if known:
        first, last = (moment(time, time / step) for time, step in (known[0], known[-1]))
        when = f"at {first}" if first == last else f"between {first} and {last}"
        said.append(f"{len(known)} {'mode escapes' if len(known) == 1 else 'modes escape'} {when}, in closed form.")
    if view.trajectories:
        found = view.report["verdict"]
        name = next(name for name in END_OF if name in view.trajectories)
        said.append(f"At the end of {END_OF[name]}: {found['sentence']}")
    return said


def _threshold(view: View) -> str:
    """From which augmentation variance on modes die; what is known where there is no such number."""
    c, threshold, predicted = view.configuration, view.prediction["threshold"], view.outcome.outlook
    if threshold is not None:
        return f"augmented modes die from k = {threshold:.4g} on. Here k = {c.aug_strength:g}"
    if predicted is None or predicted.growth is None or (c.weight_decay and c.depth > 1):
        return "not computed for these settings"
    return "none: in closed form, modes survive any augmentation variance"


def caveats(view: View) -> list[str]:
    """Say what of the closed forms does not hold for a setting.

    Args:
        view: The setting and its records.

    Returns:
        Sentences.
    """
    c, simulation = view.configuration, view.simulation
    if view.outcome.outlook is None:
        return [_without_closed_form(c.loss), *_of_records(view)]
    said = [f"Closed forms assume: {'; '.join(view.prediction['assumes'])}."]
    if view.closed is None:
        said.append(f"{c.loss}: rest values and times are known in closed form, paths between them are not.")
    elif c.depth > 1:
        said.append(
            "Curves in closed form start as if the singular vectors of P(0) were the modes and the layers were "
            "balanced and aligned."
        )
    else:
        said.append("Curves in closed form start from what faster modes leave of each mode in P(0).")
    if c.loss == "byol":
        said.append("Escape times are those of simsiam; byol takes longer, because its target lags behind.")
    if (width := room(simulation)) < simulation.task.dim:
        alone = "closed forms follow each" if c.depth > 1 else "rest values are those of each"
        said.append(
            f"The network is only {width} wide: {alone} of the {simulation.task.dim} modes alone, as if there were an "
            "output for each."
        )
    if c.weight_decay and c.depth > 1:
        said.append("With weight decay on several layers zero is stable, too: modes that start small decay to it.")
    return [*said, *_of_records(view)]


def _without_closed_form(loss: str) -> str:
    try:
        check_closed_form(loss)
    except ValueError as error:
        return f"No closed forms: {error}."
    return "No closed forms are known for this setting."


def _of_records(view: View) -> list[str]:
    found = view.report
    said = [threshold_sentence(found)]
    if "population" in view.trajectories:
        said.append(population_limit_sentence(found))
    return [one for one in said if one]


def table(view: View, time: float) -> str:
    """The numbers of every mode at a flow time, as an HTML table.

    Args:
        view: The setting and its records.
        time: One of its recorded times.

    Returns:
        HTML; every cell names its column as `data-column`.
    """
    names = {**COLUMNS, **{name: PATHS[name] for name in view.paths}}
    rows = view.rows(time)
    if view.trajectories:
        names["fate"] = "fate at the end"
        verdict = view.outcome.verdict
        assert verdict is not None  # there is a record
        rows = [row | {"fate": str(one.fate)} for row, one in zip(rows, verdict.dimensions, strict=False)]
    head = "".join(f"<th>{escape(words)}</th>" for words in names.values())
    body = "".join(
        "<tr>" + "".join(f'<td data-column="{name}">{_cell(row.get(name))}</td>' for name in names) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table id="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def listed(sentences: Sequence[str], name: str) -> str:
    """Sentences as an HTML list.

    Args:
        sentences: The sentences.
        name: The list's id.

    Returns:
        HTML.
    """
    return f'<ul id="{name}">' + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def side_by_side(parts: Iterable[str]) -> str:
    """HTML parts in columns where the window is wide, one below the other where it is narrow.

    Args:
        parts: HTML.

    Returns:
        HTML.
    """
    return '<div class="columns">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def progress(words: str, share: float) -> str:
    """A bar of progress.

    Args:
        words: What is going on.
        share: How much of it is done, between 0 and 1.

    Returns:
        HTML.
    """
    return f'<p class="progress">{escape(words)} <progress max="1" value="{share:.3f}"></progress> {share:.0%}</p>'


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
