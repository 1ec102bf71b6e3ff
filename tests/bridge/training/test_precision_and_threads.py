"""Defaults that follow the machine: precision of the network, and CPU threads."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import ALONE, equal, small, states, write_images

from dyncollapse.bridge import pretrain, read_run, resolve
from dyncollapse.bridge.training import optimisation
from dyncollapse.bridge.training.optimisation import default_precision, with_precision
from dyncollapse.bridge.training.trainer import build_trainer
from dyncollapse.commands.main import main
from dyncollapse.runtime.process import core_share, cores, default_threads

PROBES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.fixture
def processor(monkeypatch):
    """Pretend to be a processor that computes in bfloat16, one that does not, or a torch that cannot say."""

    def pretend(*has):
        optimisation.default_precision.cache_clear()
        for name, supported in zip(PROBES, has, strict=True):
            if supported is None:
                monkeypatch.delattr(torch.cpu, name, raising=False)
            else:
                monkeypatch.setattr(torch.cpu, name, lambda supported=supported: supported, raising=False)

    yield pretend
    optimisation.default_precision.cache_clear()


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ((True, False), "bfloat16"),
        ((False, True), "bfloat16"),
        ((False, False), "float32"),
        ((None, None), "float32"),
        ((None, True), "bfloat16"),
    ],
)
def test_precision_follows_the_processor(has, expected, processor):
    processor(*has)
    assert default_precision("cpu") == expected
    assert default_precision("cuda") == "bfloat16"
    recipe = resolve({"preset": "cifar10", "data": "somewhere", "arch": "resnet10-narrow", "batch_size": 2})
    assert recipe.precision is None
    assert build_trainer(recipe, ALONE, 2, 3).recipe.precision == expected


def test_a_given_precision_and_that_of_digits_stay(processor):
    processor(True, True)
    assert (resolve({"data": "digits"}).precision, resolve({"data": "digits"}).threads) == ("float32", 1)
    for given in ("float32", "float16"):
        recipe = small(precision=given)
        assert with_precision(recipe, None, ALONE) is recipe


def test_a_run_keeps_its_precision_on_another_processor(processor, tmp_path):
    unset = replace(small(images=64, batch_size=32), precision=None, epochs=2)
    processor(False, True)
    pretrain(unset, tmp_path / "whole", ALONE)
    recorded = read_run(tmp_path / "whole").recipe
    assert recorded.precision == "bfloat16"
    processor(False, False)
    again = pretrain(unset, tmp_path / "whole", ALONE)  # finished: it is read, in the precision that it has
    assert read_run(tmp_path / "whole").recipe == recorded
    assert equal(again.state_dict(), states(tmp_path / "whole")["model"])
    with pytest.raises(ValueError, match="precision is 'float32', but this run began with 'bfloat16'"):
        pretrain(replace(unset, precision="float32"), tmp_path / "whole", ALONE)
    pretrain(unset, tmp_path / "other", ALONE)
    assert read_run(tmp_path / "other").recipe.precision == "float32"


@pytest.mark.usefixtures("sketched")
def test_threads_are_the_cores_unless_given_and_old_runs_stay_readable(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    narrow = ("--arch", "resnet10-half-16", "--stem", "cifar-stride-2", "--image-size", 16, "--batch-size", 8)
    photos = write_images(tmp_path / "photos", 8)
    given = ("--preset", "cifar10", "--data", photos, *narrow, "--epochs", 1, "--device", "cpu", "--no-tensorboard")
    made = CliRunner().invoke(main, ["bridge", "pretrain", *map(str, given), "--out", str(tmp_path / "new")])
    assert made.exit_code == 0, made.stderr
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (config["recipe"]["threads"], config["threads"], torch.get_num_threads()) == (None, cores(), cores())
    config["recipe"]["threads"] = 1  # as earlier versions recorded it
    (tmp_path / "new" / "config.json").write_text(json.dumps(config))
    assert CliRunner().invoke(main, ["bridge", "pretrain", "--resume", "--out", str(tmp_path / "new")]).exit_code == 0
    assert torch.get_num_threads() == 1


def test_processes_on_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr("dyncollapse.runtime.process.cores", lambda: 9)
    assert [core_share(count) for count in (1, 2, 4, 9, 10)] == [9, 4, 2, 1, 1]
    for started, expected in (("2", 4), ("100", 1), ("0", 9), ("many", 9), ("", 9)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", started)
        assert core_share() == expected
    assert core_share(3) == 3
    for given, expected in (("2", 2), ("64", 9), ("4,2", 4), ("0", 1), ("all", 9), ("", 9)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert default_threads(1) == expected
