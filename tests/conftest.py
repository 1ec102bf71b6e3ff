import functools
import gc
import math
import os
import random
import signal
import sys
import tarfile
from contextlib import contextmanager

import pytest
from helpers.constants import set_constant
from helpers.shapes import check_annotations, check_next_calls
from helpers.stack import with_room
from hypothesis import settings

pytest.register_assert_rewrite("helpers.monitor", "helpers.readers", "helpers.waiting")
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start beside each other
gc.set_threshold(20_000)  # looked for after 700 new objects, garbage takes a twentieth of the time
if "--benchmark-only" not in sys.argv:  # both would be timed, too
    # Else threads that wait for each other keep other processes from the cores.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    check_annotations()  # before anything imports the package

# What computes is imported late: the process that shares out the tests needs none of it, and the others wait for it.

MANY = 300  # modules that are imported late, as a library and all that it imports
WHOLE = 5000  # tests, among which some need forks: their server imports everything while others run
_kept_out = 0  # modules that collections of garbage do not look at

settings.register_profile("identities", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("identities")


@pytest.fixture(scope="session", autouse=True)
def whole_run():
    """What holds for all tests: one fixture, as pytest looks at each of them before every test."""
    from helpers.formulas import parse_formulas_once

    parse_formulas_once()  # the labels of pictures are alike, and Matplotlib would parse those of each picture again
    with one_thread(), ctrl_c(), no_lines_of_progress():
        yield


@contextmanager
def one_thread():
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):  # BLAS has threads of its own
        yield


@contextmanager
def ctrl_c():
    """Hear Ctrl-C, here and in the processes that tests start: a shell's background jobs inherit that it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def no_lines_of_progress():
    """Keep off stderr what only a slow machine prints: how far work is, and that it will take long."""
    with pytest.MonkeyPatch.context() as patch:
        set_constant(patch, "runtime.progress.LOG_EVERY", 3600.0)
        set_constant(patch, "commands.simulate.LONG", math.inf)
        yield


def pytest_itemcollected(item):
    """Run every test with room for its frames."""
    item.runtest = functools.partial(with_room, item.runtest)


def pytest_runtest_setup():
    """Begin every test on one thread, checking the first calls, and the same element of a list in every run.

    A command sets the threads for the whole process, and leaves it so; beartype draws an element.
    """
    import torch

    if len(sys.modules) > _kept_out + MANY:
        keep_out_of_collections()
    torch.set_num_threads(1)
    random.seed(0)
    check_next_calls()


def pytest_collection_finish(session):
    keep_out_of_collections()
    if len(session.items) > WHOLE:
        from helpers import forks

        forks.prepare()


def keep_out_of_collections():
    """Keep modules and tests out of later collections of garbage: to look at all of them takes a second each time."""
    global _kept_out
    gc.collect()
    gc.freeze()
    _kept_out = len(sys.modules)


def pytest_generate_tests(metafunc):
    """Draw one sample in each test that has a `generator`, and as many as its marker `seeds` asks for."""
    if "generator" in metafunc.fixturenames:
        asked = metafunc.definition.get_closest_marker("seeds")
        count = asked.args[0] if asked else 1
        metafunc.parametrize("generator", range(count), ids="seed{}".format, indirect=True)


@pytest.fixture
def generator(request):
    import torch

    return torch.Generator().manual_seed(request.param)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A set of images as CIFAR-10 is given: an archive with train/ and test/ in it."""
    from helpers.bridge import write_images

    folder = tmp_path_factory.mktemp("cifar")
    for number, split in enumerate(("train", "test")):
        write_images(folder / split, 8 - 2 * number, seed=number)
    with tarfile.open(folder / "cifar.tar.xz", "w:xz") as packed:
        for split in ("train", "test"):
            packed.add(folder / split, split)
    return folder / "cifar.tar.xz"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the user is, with embeddings of 12 dimensions, 8 of them alive, in three views, and a layer's inputs."""
    import numpy as np
    from helpers.diagnose_command import ALIVE, DIM

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    layer = np.diag([1.0] * ALIVE + [0.0] * (DIM - ALIVE)) @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    clean = rng.standard_normal((400, DIM))
    noise = np.array([0.1] * ALIVE + [2.0] * (DIM - ALIVE))
    for name in "abc":
        inputs = clean + noise * rng.standard_normal((400, DIM))
        np.save(f"{name}-in.npy", inputs)
        np.save(f"{name}.npy", (inputs @ layer).astype("f4"))
    return tmp_path


@pytest.fixture
def sketched(request, monkeypatch):
    """Make pictures without laying them out and rendering them, where tests ask for other things: files of empty ones.

    In a module that uses it, tests with the marker `drawn` get the whole pictures.
    """
    if request.node.get_closest_marker("drawn"):
        return
    from matplotlib.figure import Figure

    from dyncollapse.runtime import canvas
    from dyncollapse.runtime.page import record

    whole = canvas.drawn_once

    def sketch(draw, *settings, **dpi):
        def empty():
            draw()
            return Figure()

        return whole(empty, *settings, **dpi)

    for module in (canvas, record):
        monkeypatch.setattr(module, "drawn_once", sketch)


@pytest.fixture
def diagnose(folder):  # noqa: ARG001 (the user has to be somewhere)
    return command("diagnose")


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    from helpers.programs import SMALL

    monkeypatch.chdir(tmp_path)
    return command("simulate", *SMALL)


def command(*words):
    """Call a command, given further words."""
    from click.testing import CliRunner
    from helpers.programs import changed

    from dyncollapse.commands.main import main

    return lambda *options: CliRunner().invoke(main, changed(words, *options))
