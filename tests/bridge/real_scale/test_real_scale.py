"""The real-scale check: every part at toy size, as a command and on a pretended GPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.bridge import ALONE, small
from helpers.constants import set_constant
from helpers.pretend_cuda import pretend_cuda
from helpers.programs import refused
from helpers.real_scale import call, site
from matplotlib.image import imread

from dyncollapse.bridge.evaluation.check_rows import table_recipes
from dyncollapse.bridge.real_scale import cifar, covariances, embedding, ensembles, report, throughput
from dyncollapse.bridge.training.checkpoints import newest
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.pretraining import pretrain
from dyncollapse.bridge.training.training_log import read_log

# --- The whole


@pytest.mark.slow
def test_command_does_every_part_and_leaves_a_report(tmp_path, archive, monkeypatch, capfd):
    set_constant(
        monkeypatch,
        "bridge.real_scale.report.PARTS",
        tuple(replace(part, most=10 * part.most) for part in report.PARTS),
    )
    options = ["--full", "--tiny", "--device", "cpu", "--minutes", 90, "--json"]
    done = call(*options, "--cifar", archive, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {part["number"]: part["status"] for part in printed["parts"]} == dict.fromkeys(range(1, 7), "ok")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.json", "summary.md", "report.png", "cifar.png", "cifar"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) | {"folder": str(tmp_path / "out")} == printed
    values = {part["number"]: part["values"] for part in printed["parts"]}
    assert list(values[1]["rates"]) == ["SimCLR-mlp", "SimCLR-linear", "SimCLR-none", "DirectCLR"]
    assert values[2]["step"] > 0  # the encoder that part 1 had trained
    assert len(values[2]["spectra"]["embedding"]["eigenvalues"]) == 128
    assert values[5]["loss"] == values[5]["resumed_loss"]  # to the bit, on a CPU
    assert len(values[6]["rows"]) == 9
    assert not list((tmp_path / "out").glob("cifar/*/checkpoints"))
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert summary.startswith("# Real-scale check: passed\n")
    assert "| DirectCLR (low-rank diagonal) | 62.7 |" in summary
    for picture in ("report.png", "cifar.png"):
        assert imread(tmp_path / "out" / picture).std() > 0.05
    assert "6. Tables 1 and 2 on CIFAR-10" in done.stderr
    assert "Warning" not in done.stderr + capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
@pytest.mark.parametrize("part", [throughput, embedding, covariances, ensembles, cifar], ids=lambda m: m.__name__)
def test_part_keeps_to_one_device(part, tmp_path, archive, monkeypatch):
    # Two of each: all projectors go to a device alike, and pretending is slow.
    variants = {name: throughput.VARIANTS[name] for name in ("SimCLR-mlp", "DirectCLR")}
    set_constant(monkeypatch, "bridge.real_scale.throughput.VARIANTS", variants)
    set_constant(monkeypatch, "bridge.real_scale.cifar.ORDER", ("mlp", "linear"))
    monkeypatch.setattr(cifar, "table_recipes", lambda common: table_recipes(common, ("mlp", "linear")))
    with pretend_cuda() as device:
        found = part.measure(site(tmp_path, device, cifar=archive))
    assert found.findings
    assert not found.failed


@pytest.mark.slow
def test_pretraining_and_its_resumption_keep_to_one_device(tmp_path):
    recipe = small(device="cuda", deterministic=True)
    with pretend_cuda() as device:
        pretrain(recipe, tmp_path, Process(0, 1, device))
        newest(tmp_path).unlink()  # the end's, so that there are steps left
        pretrain(recipe, tmp_path, Process(0, 1, device))
    pretrain(replace(recipe, device="cpu"), tmp_path / "cpu", ALONE)
    here, there = (read_log(folder / "log.jsonl")[-1]["loss"] for folder in (tmp_path, tmp_path / "cpu"))
    assert here == there


def test_the_pretended_gpu_refuses_what_a_real_one_would():
    with pretend_cuda():
        here, there = torch.zeros(3), torch.zeros(3, device="cuda")
        assert there.device.type == "cuda"
        assert there.is_cuda
        assert (there + 1).is_cuda
        assert (there * torch.tensor(2.0)).is_cuda  # one number may come from anywhere
        assert not there.cpu().is_cuda
        assert here.to(there.device).is_cuda
        assert there[here.long()].is_cuda
        layer = torch.nn.Linear(3, 3).to("cuda")
        layer(there).sum().backward()
        assert layer.weight.is_cuda
        for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="cuda"):
                mixed()
        with pytest.raises(RuntimeError, match="cuda"):
            layer(here)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


# --- Bad input


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_absent_is_told_in_a_line(tmp_path):
    line = refused(call("--full", "--out", tmp_path / "out"))
    assert line == "dyncollapse: --device is 'cuda' (the default); this machine offers cpu; give --device cpu"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--full", "--seeds", "2", "--short"], "--seeds, --short: only for the check of projectors; drop it"),
        (["--minutes", "3"], "--minutes: only with --full or --tiny; add one, or drop it"),
        (["--tiny", "--device", "cpu", "--cifar", "gone"], "--cifar gone is not there; give a folder of CIFAR-10"),
        (["--tiny", "--device", "cpu", "--cifar", __file__], "is no folder and no tar archive; give CIFAR-10 as one"),
        (["--tiny", "--device", "cpu", "--cifar", str(Path(__file__).parent)], "holds no images"),
        (["--full", "--device", "tpu"], "--device is 'tpu'; this machine offers cpu"),
        (["--full", "--minutes", "0"], "--minutes is 0; it must be above 0 and at most 10000"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, told):
    assert told in refused(call(*given))
