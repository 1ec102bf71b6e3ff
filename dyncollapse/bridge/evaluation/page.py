"""The diagnosis of an encoder's spaces as a page for a browser."""

from collections.abc import Mapping, Sequence
from typing import Any

from dyncollapse.diagnostics.page import fate_table, spectrum_pictures
from dyncollapse.runtime.page.record import Page, Picture, Table


def spaces_page(
    values: Mapping[str, Any],
    remarks: Sequence[str] = (),
    subject: str = "",
    reproduce: str = "",
    pictures: Mapping[str, Sequence[Picture]] | None = None,
) -> Page:
    """Put the diagnosis of both spaces on one page.

    Args:
        values: What diagnosis.json holds: `DiagnosedSpaces.as_values`, with the settings as "config" if there are any.
        remarks: Sentences that explain the numbers.
        subject: The encoder, and what was matched of it.
        reproduce: The command line that gives the same diagnosis.
        pictures: Those of `pictures_by_space`, where other pages show them, too; None makes them.

    Returns:
        What collapsed in each space, spectra, fates and measures side by side, ranks by depth, and alignment of layers.
    """
    spaces: Mapping[str, Mapping[str, Any]] = values["spaces"]
    counts = ", ".join(f"{one['collapsed']} of {one['dim']} in the {space}" for space, one in spaces.items())
    notes = [f"{space}: {text}" for space, one in spaces.items() for text in one["notes"]]
    return Page(
        command="bridge diagnose",
        subject=subject or "An encoder",
        verdict=f"Collapsed dimensions: {counts}.",
        facts=[f"{space}: {one['verdict']['sentence']}" for space, one in spaces.items()],
        remarks=remarks,
        pictures=[picture for some in (pictures or pictures_by_space(spaces)).values() for picture in some],
        tables=[
            *(fate_table(one, space) for space, one in spaces.items()),
            _measures(spaces),
            *([_depth(values["depth"])] if values["depth"] else []),
            *([_layers(values["layers"])] if values["layers"] else []),
        ],
        cautions=[f"{space}: {text}" for space, one in spaces.items() for text in one["warnings"]],
        notes=[*notes, *(f"Assumed: {text}" for text in values["assumptions"])],
        remedies=values["remedies"] if "remedies" in values else _remedies(spaces),
        settings=values.get("config", {}),
        reproduce=reproduce,
    )


def pictures_by_space(spaces: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Picture]]:
    """Make the pictures of each space, given what its diagnosis.json holds by the name of the space."""
    return {space: spectrum_pictures(values, space) for space, values in spaces.items()}


def _remedies(spaces: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, str]]:
    """The remedies of all spaces, each once."""
    every = [one for space in spaces.values() for one in space.get("remedies", ())]
    return list({(one["kind"], one["try"], one["effect"]): one for one in every}.values())


def _measures(spaces: Mapping[str, Mapping[str, Any]]) -> Table:
    first = next(iter(spaces.values()))
    rows = [
        [name, *(one["measures"][name] for one in spaces.values()), first["conventions"][name]]
        for name in first["measures"]
    ]
    return Table("Measures", ["measure", *spaces, "definition"], rows)


def _depth(stages: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[one["stage"], one["effective_rank"], one["dim"]] for one in stages]
    return Table("Effective rank by depth", ("stage", "effective rank", "of"), rows)


def _layers(layers: Sequence[Mapping[str, Any]]) -> Table:
    names = ("first", "second", "between", "pattern", "alignment", "permuted_alignment", "groups")
    words = ("layer", "next layer", "between", "pattern", "|A|^2 in order", "under the best matching", "groups")
    return Table("Alignment of the last layers", words, [[one[name] for name in names] for one in layers])
