"""Training and test images of one set, with the names of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from dyncollapse.bridge.data.image_sets import Images, labelled
from dyncollapse.bridge.data.name_lists import some
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError


@dataclass(frozen=True, eq=False)
class Data:
    """Training and test images.

    Attributes:
        train: Images to train on.
        test: Images to test on; None if there are none.
        classes: Names of the classes, by label.
        title: What messages call the data: the name that was given.
        skipped: A sentence on what was skipped when they were listed; empty if nothing was.

    Examples:
        >>> from dyncollapse.bridge import open_data
        >>> digits = open_data("digits")
        >>> digits.title, digits.classes[:3], digits.train.read(0).shape
        ('digits', ['0', '1', '2'], torch.Size([1, 8, 8]))
    """

    train: Images
    test: Images | None
    classes: Sequence[str]
    title: str
    skipped: str = ""

    def split(self, name: str) -> Images:
        """The images of a split.

        Args:
            name: "train" or "test".

        Returns:
            The images.

        Raises:
            SettingError: If there are no test images.
        """
        if name == "train":
            return self.train
        if self.test is None:
            shown = unmarked(self.title)
            raise SettingError(
                f"`data` {shown} has no test images; give a folder with train/ and val/ or test/, or a dataset or "
                "shards with such splits"
            )
        return self.test

    def check_labels(self) -> None:
        """Check that a classifier can be trained and tested on these images.

        Raises:
            SettingError: If images have no classes, if there are fewer than two classes to train on, or if a class of
                the test images has no training images. One line.
        """
        shown = unmarked(self.title)
        besides = f"; skipped: {unmarked(self.skipped)}" if self.skipped else ""
        for part, split in (("training", "train"), ("test", "test")):
            if not labelled(self.split(split)):
                raise SettingError(
                    f"the {part} images of `data` {shown} have no classes, which a probe needs; put the images of each "
                    f"class in a folder of its own, or give a dataset or shards with labels{besides}"
                )
        trained, tested = (set(images.labels.unique().tolist()) for images in (self.train, self.split("test")))
        if len(trained) < 2:
            raise SettingError(f"`data` {shown} has training images of one class only; a probe needs two{besides}")
        if unseen := sorted(tested - trained):
            names = unmarked(some([self.classes[k] for k in unseen]))
            raise SettingError(
                f"`data` {shown} has test images of {names}, and no training images of it; is it only half copied?"
            )
