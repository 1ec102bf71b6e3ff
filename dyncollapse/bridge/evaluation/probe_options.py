"""How a linear probe is trained: options of `bridge probe`."""

from typing import Literal

from dyncollapse.bridge.recipe import WIDEST
from dyncollapse.runtime.records import MOST_EPOCHS, Whole, record, setting
from dyncollapse.runtime.settings import SettingError

Classifier = Literal["logistic", "sgd"]
# Training images up to which the probe is by logistic regression, unless asked for otherwise: all features are held
# in memory, 2048 of them 1.6 GB in float64.
LOGISTIC_MOST = 100_000
SGD_EPOCHS = 100


@record
class ProbeOptions:
    """How a linear probe is trained, and on which dimensions.

    Raises:
        SettingError: One line for an option of another type or out of range, and for epochs of logistic regression.

    Examples:
        >>> ProbeOptions(epochs=5).choose(images=1000), ProbeOptions().choose(images=1000)
        ('sgd', 'logistic')
    """

    classifier: Classifier | None = setting(
        None,
        "logistic: regression on stored representations of plain images; sgd: trained on new crops and flips.",
        group="probe",
        unset=f"logistic up to {LOGISTIC_MOST} images, sgd beyond",
    )
    subvector: Whole | None = setting(
        None,
        "Probe the first N dimensions only.",
        group="probe",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="all",
        metavar="N",
    )
    epochs: Whole | None = setting(
        None,
        "Epochs of sgd; giving them chooses sgd.",
        group="probe",
        unit="epochs",
        low=1,
        high=MOST_EPOCHS,
        unset=f"{SGD_EPOCHS} epochs",
    )

    def __post_init__(self) -> None:
        """Check what the options say together."""
        if self.classifier == "logistic" and self.epochs is not None:
            raise SettingError(f"`epochs` is {self.epochs}, but `classifier` logistic has none; drop one of them")

    def choose(self, images: int) -> str:
        """The classifier for so many training images."""
        return self.classifier or ("logistic" if images <= LOGISTIC_MOST and self.epochs is None else "sgd")
