import io
import math
from contextlib import redirect_stdout

import pytest
import torch
from helpers.forks import run_together
from helpers.monitor import assert_same, watched

pytest.importorskip("lightning", reason="lightning is not installed")
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        ".*LeafSpec",  # Lightning's own call of PyTorch
        ".*does not have many workers",
        ".*no `val_dataloader`",
        ".*smaller than the logging interval",
    )
]

from helpers.lightning import Encoder, Keeper, batches, fit  # noqa: E402
from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402

from dyncollapse.integrations.lightning import CollapseMonitor  # noqa: E402


def expected(steps, names=("z", "z_pos")):
    """What a monitor says of the outputs of these steps, counted from 1."""
    return watched([torch.cat([outputs[name] for outputs in steps]) for name in names])


@pytest.mark.parametrize("source", [["z", "z_pos"], "pair", lambda _module, _batch, out: (out["z"], out["z_pos"])])
def test_reports_on_the_last_batches_before_each_report(tmp_path, source):
    # 4 dimensions and batches of 16: a window of 3 batches brings 48 rows.
    callback, keeper, module = CollapseMonitor(source, every=5, sample=4096), Keeper(), Encoder()
    logged = fit(module, tmp_path, callback, keeper, max_steps=11)
    assert [step for step, _ in logged.metrics] == [5, 10]
    assert callback.batches == 11
    for step, values in logged.metrics:
        report = expected(keeper.outputs[step - 3 : step]).compute(intervals=False)
        assert values["collapse/samples"] == 48
        assert values["collapse/rankme"] == pytest.approx(report.measures["rankme"], rel=1e-9)
    assert_same(callback.report, report)
    assert keeper.callback_metrics["collapse/rankme"] == pytest.approx(report.measures["rankme"], rel=1e-6)


def test_reports_on_each_validation_epoch(tmp_path):
    callback, keeper = CollapseMonitor("z", every=None), Keeper()
    logged = fit(Encoder(), tmp_path, callback, keeper, max_epochs=2, val_dataloaders=batches(3))
    assert [values["collapse/samples"] for _, values in logged.metrics] == [48, 48]
    assert_same(callback.report, expected(keeper.validated[-3:], ["z"]).compute(intervals=False))


def test_training_is_the_same_with_it(tmp_path):
    weights = []
    for callbacks in ([], [CollapseMonitor(["z", "z_pos"], every=2)]):
        fit(module := Encoder(), tmp_path, *callbacks, max_steps=6)
        weights.append(module.layer.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_resumed_run_counts_on_and_says_what_its_window_lacks(tmp_path):
    fit(Encoder(), tmp_path, CollapseMonitor("z", every=5), max_steps=4, save=tmp_path / "at4.ckpt")
    callback, printed = CollapseMonitor("z", every=5), io.StringIO()
    with redirect_stdout(printed):
        logged = fit(Encoder(), tmp_path, callback, max_steps=10, ckpt_path=tmp_path / "at4.ckpt")
    assert [(step, values["collapse/samples"]) for step, values in logged.metrics] == [(5, 16), (10, 48)]
    assert "step 5 has 1 of the 3 steps of its window: training began or resumed within it" in printed.getvalue()
    assert callback.batches == 10


def test_embeddings_without_a_report_are_named_and_training_goes_on(tmp_path):
    def spoilt(module, _batch, outputs):
        return outputs["z"] * (math.nan if module.global_step == 4 else 1.0)

    printed = io.StringIO()
    with redirect_stdout(printed):
        logged = fit(Encoder(), tmp_path, CollapseMonitor(spoilt, every=5), max_steps=10)
    assert [step for step, _ in logged.metrics] == [10]
    assert "no report on collapse at step 5: at step 4, " in printed.getvalue()


def test_names_that_nothing_has_are_refused(tmp_path):
    for source, message in (("h", r"no embeddings 'h': outputs have the keys"), (lambda *_: None, "NoneType")):
        with pytest.raises(ValueError, match=message):
            fit(Encoder(), tmp_path, CollapseMonitor(source, every=5), max_steps=1)


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "5"])
def test_steps_between_reports_are_a_whole_number(every):
    with pytest.raises(ValueError, match="every is"):
        CollapseMonitor("z", every=every)


def test_tensorboard_gets_numbers_and_the_picture(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(Encoder(), tmp_path, CollapseMonitor("z", every=5), max_steps=5, logger=TensorBoardLogger(tmp_path, name="run"))
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent)).Reload()
    assert events.Scalars("collapse/samples")[0].value == 48
    (image,) = events.Images("collapse/spectrum")
    assert (image.width, image.height, image.step) == (500, 350, 5)


def test_other_loggers_get_numbers_alone_and_one_line_says_so(tmp_path):
    printed = io.StringIO()
    with redirect_stdout(printed):
        fit(Encoder(), tmp_path, CollapseMonitor("z", every=2), max_steps=8)
    assert printed.getvalue().count("Recorder gets the numbers of the report on collapse, not the picture") == 1
    silent = io.StringIO()
    with redirect_stdout(silent):
        fit(Encoder(), tmp_path, CollapseMonitor("z", every=2, draw=False), max_steps=4)
    assert "picture" not in silent.getvalue()


def test_it_works_in_the_other_package_of_lightning(tmp_path):
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    callback = CollapseMonitor("z", every=5)
    fit(Encoder.of(other.LightningModule), tmp_path, callback, max_steps=5, package=other)
    assert callback.report.samples == 48


WORKER = """
import sys, torch
from helpers.lightning import processes
processes(int(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


@pytest.mark.slow
def test_two_processes_report_on_the_rows_of_both(tmp_path):
    run_together(*(["-c", WORKER, rank, tmp_path / "meeting", tmp_path / "out"] for rank in range(2)))
    (first, rows, log), (second, others, silent) = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    assert first == second
    report = expected([{"z": z} for part in zip(rows, others, strict=True) for z in part], ["z"])
    for name in ("samples", "collapsed", "spectrum"):
        assert first[name] == pytest.approx(report.compute(intervals=False).as_values()[name], rel=1e-9)
    assert (log, silent) == (1, 0)
