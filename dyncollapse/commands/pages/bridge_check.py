"""The page of `dyncollapse bridge check`."""

from functools import partial
from pathlib import Path

import click

from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.options import AS_JSON, EPOCHS, NUMBER, OUT, SPAN, THREADS, WHOLE, Between

images = partial(grouped_option, group="images")
runs = partial(grouped_option, group="runs")
at_scale = partial(grouped_option, group="scale")

check = page(
    "dyncollapse.commands.bridge_check:check",
    """Does the paper's order of projectors hold on these images?

    Trains an encoder under every projector, probes and diagnoses each, and prints the results beside the paper's. It
    saves a folder per run, table.json, table.md and figures.png, small versions of the paper's Figures 2, 7b, 9,
    10 and 12. The same command continues after Ctrl-C.

    Without --data it takes digits: no download, no GPU, six minutes on two quiet cores. With --data it measures
    encoders for seconds, says which one, how many rows, seeds, epochs and images fit into the --budget, and keeps
    that choice in check.json.

    --full asks another question: do the full-size computations run on one GPU, and how fast? It runs ResNet-50 at
    224 x 224, 50 000 embeddings and their covariances, 4096 toy networks, a resumed run and, given CIFAR-10, the
    rows of the tables. It saves report.json, summary.md and pictures, and exits with 1 when a part fails.
    """,
    images(
        "--data",
        help="cifar10, which is downloaded once, a folder with train/CLASS/*.jpg and test/, hf:ORG/NAME, or .tar "
        "shards.  [digits]",
    ),
    images("--budget", type=SPAN, help="With --data: time for the whole check, as 90s, 40m or 2h.  [40m]"),
    runs("--seeds", type=Between(WHOLE, 1, 100), help="Runs of each projector.  [digits: 3; --data: by the budget]"),
    runs("--epochs", type=EPOCHS, help="Epochs of each run.  [digits: 30, or 15 with --short; --data: by the budget]"),
    runs("--short", is_flag=True, help="Only the projectors of Table 1 and, on digits, fewer sub-vectors."),
    runs("--workers", type=THREADS, help="Runs at a time, which share the cores.  [one on each core]"),
    at_scale("--full", is_flag=True, help="Check the full size on one device instead, part by part."),
    at_scale("--tiny", is_flag=True, help="As --full, with every part at toy size: about a minute on a CPU."),
    at_scale(
        "--device", help="Of --full and --tiny: cpu, cuda or cuda:N.  [cuda; with --tiny, cpu if there is no GPU]"
    ),
    at_scale(
        "--cifar",
        type=click.Path(path_type=Path),
        help="Of --full and --tiny: a folder of CIFAR-10, or its archive.  [none]",
    ),
    at_scale(
        "--minutes",
        type=Between(NUMBER, 0, 10**4, above=True),
        help="Of --full and --tiny: time limit of all parts together.  [9 minutes]",
    ),
    click.option("--out", type=OUT, help="Folder, new or of an earlier check.  [runs/check-NNNN]"),
    AS_JSON,
    surplus="name its folder with --out",
    example="dyncollapse bridge check --data cifar10 --budget 40m --out runs/check",
    topics=("collapse", "measures", "folders"),
)
