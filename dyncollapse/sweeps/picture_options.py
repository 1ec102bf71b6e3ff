"""Which pictures of a sweep to save, and in which format: options of the command line, in one record."""

from typing import Literal

from dyncollapse.runtime.records import Several, record, setting
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.picture_options import PictureFormat

SweepPlot = Literal["sweep", "spectrum"]


@record
class SweepPictureOptions:
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

    def __post_init__(self) -> None:
        """Check that every picture is named once."""
        if not self.plot or len(set(self.plot)) < len(self.plot):
            raise SettingError(f"`plot` is {quoted(','.join(self.plot))}; name one or more pictures, each once")

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(f"{name}.{self.format}" for name in self.plot)
