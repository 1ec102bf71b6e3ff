"""Shared by all figure scripts: the command line, the style, and the files of results."""

import csv
import io
import os
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from dyncollapse import recycle_freed_memory
from dyncollapse.runtime.files import write_bytes, write_whole

os.environ["MPLBACKEND"] = "agg"  # before Matplotlib is imported: a notebook's backend may fail here

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """A drawn figure, the numbers in it (one dict per row), and the caption: setting, seeds and what is asserted."""

    figure: Figure
    rows: Sequence[dict[str, object]]
    caption: str


def main(name: str, draw: Callable[..., Result], *, takes_cifar: bool = False) -> None:
    """Parse --quick and --out, draw in the common style, and write name.png, .pdf, .csv and .txt.

    `draw(quick)` computes, asserts its claims and returns a Result; with `quick` it asserts the same claims on a
    smaller problem. With `takes_cifar` it is draw(quick, folder) with the folder of --cifar, or None.
    """
    parser = ArgumentParser(description=draw.__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller problem with the same assertions")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for the results (default: figures/out)")
    if takes_cifar:
        parser.add_argument("--cifar", metavar="FOLDER", help="CIFAR-10's images, for a panel that needs them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # for the same bits everywhere; scripts run in parallel instead
    recycle_freed_memory()
    matplotlib.rcdefaults()  # the user's settings may ask for LaTeX
    plt.style.use(HERE / "paper.mplstyle")
    result = draw(arguments.quick, arguments.cifar) if takes_cifar else draw(arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    target = arguments.out / name
    for suffix in ("png", "pdf"):
        write_whole(target.with_suffix(f".{suffix}"), partial(result.figure.savefig, format=suffix))
    write_bytes(target.with_suffix(".csv"), _as_table(result.rows).encode())
    write_bytes(target.with_suffix(".txt"), f"{result.caption.strip()}\n".encode())
    print(f"{target}.png, .pdf, .csv, .txt")


def claim(holds: bool, statement: str) -> None:
    """Stop with a message, also under python -O, when the figure does not show what it claims."""
    if not holds:
        raise SystemExit(f"the figure's claim does not hold: {statement}")


def _as_table(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
