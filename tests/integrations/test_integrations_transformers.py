import logging
import math
import sys

import pytest
import torch
from helpers.forks import run_together
from helpers.monitor import assert_same, watched

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

from helpers.transformers import Texts, logged, pooled, trained

from dyncollapse.integrations.transformers import CollapseCallback


@pytest.fixture(scope="module", autouse=True)
def no_notebook():
    """transformers takes a process that has imported marimo, as tests of its page do, for a notebook with IPython."""
    import transformers

    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "marimo", raising=False)
        assert transformers.Trainer  # which is imported here
        yield


@pytest.fixture
def warned():
    """Lines that the library has logged as warnings."""
    lines = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("dyncollapse").addHandler(handler)
    yield lines
    logging.getLogger("dyncollapse").removeHandler(handler)


def own(_model, inputs, outputs):
    kept = inputs["attention_mask"].unsqueeze(-1)
    return (outputs["hidden_states"][-1] * kept).sum(1) / kept.sum(1)


@pytest.mark.parametrize("source", ["hidden_states", own])
def test_reports_on_the_last_steps_before_each_report(tmp_path, source):
    # 4 dimensions and batches of 8: a window of 5 steps brings 40 rows.
    calls, callback = [], CollapseCallback(source, every=5 if source == own else 6)
    trainer = trained(tmp_path, callback, keep=calls, steps=12)
    every = callback.watch.every
    assert list(logged(trainer)) == list(range(every, 13, every))
    last = max(logged(trainer))
    report = watched([pooled(calls[last - 5 : last])]).compute(intervals=False)
    assert logged(trainer)[last]["collapse/rankme"] == pytest.approx(report.measures["rankme"], rel=1e-6)
    assert_same(callback.report, report, rtol=1e-6)
    assert len(trainer.model._forward_hooks) == 1  # the test's own


def test_training_is_the_same_with_it_and_looks_at_training_alone(tmp_path):
    callback = CollapseCallback("logits", every=2)
    weights = []
    for one in (None, callback):
        trainer = trained(tmp_path, one, steps=4, eval_strategy="no")
        weights.append(trainer.model.classifier.weight.detach().clone())
    assert torch.equal(*weights)
    samples = callback.report.samples
    trainer.evaluate(Texts(16))
    assert callback.report.samples == samples
    assert callback.watch.monitor.sums is None


def test_a_resumed_run_counts_on_and_says_what_its_window_lacks(tmp_path, warned):
    trained(tmp_path, CollapseCallback("hidden_states", every=6), steps=4, save_strategy="steps", save_steps=4)
    callback = CollapseCallback("hidden_states", every=6)
    trainer = trained(tmp_path, callback, steps=12, resume=str(tmp_path / "checkpoint-4"))
    assert {step: line["collapse/samples"] for step, line in logged(trainer).items()} == {6: 16, 12: 40}
    assert "step 6 has 2 of the 5 steps of its window" in "\n".join(warned)


def test_embeddings_without_a_report_are_named_and_training_goes_on(tmp_path, warned):
    def spoilt(_model, _inputs, outputs):
        return outputs["logits"] * math.nan

    trainer = trained(tmp_path, CollapseCallback(spoilt, every=2), steps=2)
    assert "no report on collapse at step 2: at step " in "\n".join(warned)
    assert not logged(trainer)


def test_tensorboard_gets_numbers_and_the_picture(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trained(tmp_path, CollapseCallback("logits", every=4), steps=4, report_to=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Scalars("train/collapse/samples")[0].step == 4
    assert events.Images("collapse/spectrum")[0].step == 4


def test_without_its_trainer_or_steps_it_refuses(tmp_path):
    trainer = trained(tmp_path, None, steps=1)
    trainer.add_callback(CollapseCallback("logits", every=2))
    with pytest.raises(ValueError, match=r"add it by callback.attach\(trainer\)"):
        trainer.train()
    with pytest.raises(ValueError, match="every is None"):
        CollapseCallback("logits", every=None)


WORKER = """
import sys
from helpers.transformers import processes
processes(int(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


@pytest.mark.slow
def test_two_processes_report_on_the_rows_of_both(tmp_path):
    run_together(*(["-c", WORKER, rank, tmp_path / "meeting", tmp_path] for rank in range(2)))
    (first, rows, count), (second, others, _) = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    assert first == second
    report = watched([torch.cat([rows, others])]).compute(intervals=False).as_values()
    # 4 dimensions and 16 rows per step: a window of 3 steps.
    assert (first["samples"], count) == (48, 1)
    assert first["spectrum"] == pytest.approx(report["spectrum"], rel=1e-5, abs=1e-12)
