"""Which pictures of a sweep to save, and in which format; what one panel of them shows."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dyncollapse.runtime.records import Several, record, setting
from dyncollapse.simulation.picture_options import NamedPictures, PictureFormat
from dyncollapse.sweeps.schemas import Report

SweepPlot = Literal["sweep", "spectrum"]


@record
class SweepPictureOptions(NamedPictures):
    """Pictures of a sweep, and their format.

    Raises:
        SettingError: One line for an option of another type, or for one picture named twice.

    Examples:
        >>> SweepPictureOptions(plot=("spectrum",), format="svg").files
        ('spectrum.svg',)
    """

    plot: Several[SweepPlot] = setting(
        ("sweep",),
        "Pictures: sweep, final singular values over the setting with most values; spectrum, over their rank with a "
        "line for each value of that setting, as the paper's Fig. 3; separated by commas.",
        group="pictures",
    )
    format: PictureFormat = setting("png", "Format of the pictures.", group="pictures")


class Panel(NamedTuple):
    """One panel of a sweep's picture: its title, and the value on the axis and the report of each point."""

    title: str
    points: Sequence[tuple[float, Report]]
