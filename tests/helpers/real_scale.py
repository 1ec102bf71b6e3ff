"""A place for parts of the real-scale check, and the check as a command."""

import time

import torch
from click.testing import CliRunner

from dyncollapse.bridge.real_scale.findings import Site
from dyncollapse.bridge.real_scale.scale import TINY
from dyncollapse.commands.main import main

CPU = torch.device("cpu")


def site(folder, device=CPU, **given):
    folder.mkdir(exist_ok=True)
    return Site(TINY, device, folder, folder, time.time() + 3600, tell=lambda _text: None, **given)


class Clock:
    """A module `time` whose hands a test moves."""

    def __init__(self):
        self.ahead = 0.0

    def pass_by(self, seconds):
        self.ahead += seconds

    def time(self):
        return time.time() + self.ahead

    def perf_counter(self):
        return self.ahead


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", "check", *map(str, arguments)])
