"""What work takes at least, what there is, and that nothing is allocated for what does not fit."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import ALONE, small
from helpers.constants import set_constant
from helpers.programs import refused

from dyncollapse.bridge.models.encoders import build_encoder
from dyncollapse.bridge.training.batch_size import check_batch_room, check_step_room
from dyncollapse.commands.main import main
from dyncollapse.model.choices import LOSSES
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.build import build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.footprint import RECORDS, check_room, free_memory, simulation_bytes
from dyncollapse.simulation.presets import resolve

CPU = torch.device("cpu")


def test_free_memory_is_some_of_the_machines():
    free = free_memory(CPU)
    assert free is None or 0 < free < 2**50


def test_limits_of_a_container_count(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 1024\ninactive_file 4096\n")
    set_constant(monkeypatch, "simulation.footprint.LIMITS", ((tmp_path / "memory.max", tmp_path / "memory.current"),))
    assert free_memory(CPU) == 2**29 + 5120
    (tmp_path / "memory.max").write_text("max\n")
    set_constant(monkeypatch, "simulation.footprint.MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert free_memory(CPU) == 7 * 1024


def test_sizes_of_a_simulation_are_those_of_its_parts():
    c = resolve({"dim": 100, "aug_dim": 50, "runs": 4, "depth": 2, "steps": 1000, "dynamics": ("sgd",)})
    weights = 8 * 4 * 2 * 100**2
    assert simulation_bytes(c) > (RECORDS + 3) * weights
    assert simulation_bytes(replace(c, pool=10**6)) - simulation_bytes(replace(c, pool=0)) == 8 * 4 * 10**6 * 100
    rows = [simulation_bytes(replace(c, batch_size=n, pool=0)) for n in (10**5, 2 * 10**5)]
    assert rows[1] / rows[0] == pytest.approx(4, rel=0.05)  # softmax weights


@pytest.mark.parametrize("loss", LOSSES)
def test_only_losses_on_pairs_of_rows_need_room_for_them(loss):
    sizes = [
        simulation_bytes(resolve({"loss": loss, "batch_size": n, "pool": 0, "dim": 4})) for n in (10**5, 2 * 10**5)
    ]
    expected = 4 if loss in ("infonce", "dot", "ntxent", "spectral") else 2
    assert sizes[1] / sizes[0] == pytest.approx(expected, rel=0.1)


def test_a_population_flow_keeps_vectors_and_only_without_cvode_a_jacobian(monkeypatch):
    c = resolve({"dim": 500, "aug_dim": 250, "runs": 1, "depth": 1, "steps": 100, "dynamics": ("population",)})
    probes = 8 * 2 * 20_000 * 500
    assert simulation_bytes(c) - probes == pytest.approx(8 * 43 * 500**2, rel=0.01)  # 1 of weights, 2 of covariances
    monkeypatch.setattr("dyncollapse.simulation.footprint.cvode_is_installed", lambda: False)
    assert simulation_bytes(c) == pytest.approx(8 * 500**4, rel=0.01)


def test_runs_of_flows_take_memory_one_by_one():
    c = resolve(
        {"dim": 100, "aug_dim": 50, "depth": 2, "steps": 100, "pool": 0, "dynamics": ("flow",), "batch_size": 8}
    )
    weights, batches = 8 * 2 * 100**2, 8 * 2 * c.flow_batches * 8 * 100
    few, many = (simulation_bytes(replace(c, runs=runs, threads=1)) for runs in (10, 20))
    assert many - few == pytest.approx(10 * (weights + batches))
    shared = simulation_bytes(replace(c, runs=20, threads=4))
    assert shared - many == pytest.approx(3 * (17 * weights + 8 * 8**2))


PEAK = """
from pathlib import Path
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.footprint import simulation_bytes
from dyncollapse.simulation.run import run
c = resolve({"dim": 96, "aug_dim": 48, "runs": 1, "steps": 200, "dynamics": ("population",), "pool": 0})
# Unlike ru_maxrss, this starts anew in a program that a large one has started.
peak = lambda: 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
run(build(resolve({"dim": 4, "steps": 2, "dynamics": ("population",)})), lambda *_: None, lambda _: None)
before = peak()
run(build(c), lambda *_: None, lambda _: None)
print((peak() - before) / simulation_bytes(c))
"""

resource = pytest.importorskip("resource")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux reports the peak of a process there")
def test_a_population_flow_takes_what_is_estimated():
    share = float(subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout)
    assert 0.7 < share < 1.6, share


@pytest.mark.parametrize(
    "options",
    [
        ["--dim", "10000"],
        ["--runs", "1000000", "--dim", "100"],
        ["--depth", "1000", "--dim", "1000"],
        ["--batch-size", "1000000", "--pool", "0"],
        ["--pool", "1000000000"],
        ["--flow-batches", "1000000", "--dim", "100"],
        ["--dim", "5000", "--dynamics", "population", "--runs", "1"],
    ],
)
def test_simulations_that_do_not_fit_are_refused_before_anything_is_allocated(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dyncollapse.simulation.footprint.free_memory", lambda _device: 2**34)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = refused(CliRunner().invoke(main, ["simulate", *options]))
    assert "this simulation takes at least" in line
    assert "and 16 GiB are free; lower --dim, --depth, --batch-size, --pool or --runs" in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # 128 MiB, in kB
    assert not [*tmp_path.iterdir()]


def test_what_fits_is_built_and_what_the_system_does_not_say_is_tried(monkeypatch):
    monkeypatch.setattr("dyncollapse.simulation.footprint.free_memory", lambda _device: None)
    check_room(math.inf, "cpu", "this", "")
    c = Configuration(runs=1, pool=128)
    monkeypatch.setattr("dyncollapse.simulation.footprint.free_memory", lambda _device: math.ceil(simulation_bytes(c)))
    assert build(c).configuration == c
    monkeypatch.setattr(
        "dyncollapse.simulation.footprint.free_memory", lambda _device: math.floor(simulation_bytes(c)) - 1
    )
    with pytest.raises(SettingError, match="MiB are free; lower dim"):
        build(c)


def test_steps_and_batches_of_an_encoder_are_counted_by_shapes_alone():
    recipe = small(image_size=4096)
    encoder = build_encoder(recipe, 1)
    with pytest.raises(SettingError, match=r"a step of this run takes at least .*; lower batch_size or image_size"):
        check_step_room(recipe, encoder, ALONE, 1)
    with pytest.raises(SettingError, match="a batch of 256 images takes at least"):
        check_batch_room(encoder.backbone, (256, 1, 4096, 4096), 2, CPU)
    check_step_room(small(), encoder, ALONE, 1)
    assert encoder.training
    assert not any(layer._forward_hooks for layer in encoder.modules())


def test_a_projector_that_does_not_fit_is_refused():
    with pytest.raises(SettingError, match=r"the projector takes at least .* lower hidden_dim or out_dim"):
        build_encoder(small(hidden_dim=10**6, out_dim=10**6), 1)
