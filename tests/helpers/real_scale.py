"""A place for parts of the real-scale check, and the check as a command."""

import os
import time

import torch
from click.testing import CliRunner

from dyncollapse.bridge.real_scale.findings import Site
from dyncollapse.bridge.real_scale.scale import TINY
from dyncollapse.commands.main import main

CPU = torch.device("cpu")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def site(folder, device=CPU, **given):
    folder.mkdir(exist_ok=True)
    return Site(TINY, device, folder, folder, time.time() + 300, tell=lambda _text: None, **given)


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", "check", *map(str, arguments)])
