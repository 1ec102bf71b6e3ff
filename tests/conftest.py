import os
import tarfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import write_images
from helpers.diagnose_command import ALIVE, DIM
from helpers.programs import SMALL
from hypothesis import settings

from dyncollapse.commands.main import main

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start beside each other

pytest.register_assert_rewrite("helpers.monitor", "helpers.readers")

settings.register_profile("identities", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("identities")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


# Every test that draws random numbers through this fixture runs on three seeds.
@pytest.fixture(params=(0, 1, 2), ids="seed{}".format)
def generator(request):
    return torch.Generator().manual_seed(request.param)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A set of images as CIFAR-10 is given: an archive with train/ and test/ in it."""
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
def diagnose(folder):  # noqa: ARG001 (the user has to be somewhere)
    return lambda *options: CliRunner().invoke(main, ["diagnose", *map(str, options)])


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *options: CliRunner().invoke(main, ["simulate", *SMALL, *map(str, options)])
