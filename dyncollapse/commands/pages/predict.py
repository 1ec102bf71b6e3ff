"""The page of `dyncollapse predict`."""

import click

from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, record_options

predict = page(
    "dyncollapse.commands.predict:predict",
    """Which directions of my images will an encoder lose?

    Draws two views of each image, measures two covariances, and predicts a linear encoder on the pixels before it is
    trained: which directions it keeps, which the augmentation suppresses, and in which order it learns them. Also
    measures each operation of the augmentation alone, and all but it.

    The mean pixel is subtracted: the encoder has no bias. With --features the encoder is a linear head on
    representations.
    """,
    record_options(PredictOptions),
    click.option("--out", type=OUT, help="Folder for JSON, CSV and picture, new or empty."),
    AS_JSON,
    AS_HTML,
    surplus="name the images with --data",
    example="dyncollapse predict --data digits",
    topics=("collapse", "causes", "views", "rho", "losses", "time", "folders"),
)
