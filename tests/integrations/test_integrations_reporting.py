import math
import sys
import types

import numpy as np
import pytest
import torch
from helpers.forks import run
from helpers.monitor import gaussian, watched

from dyncollapse.integrations.pictures import send
from dyncollapse.integrations.reporting import picture, scalars
from dyncollapse.integrations.watch import Watch, embeddings_of

PIXELS = np.zeros((3, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("intervals", [False, True])
def test_scalars_are_numbers_of_the_report_under_names_that_stay(others, intervals):
    def of(seed, rows=60):
        return watched(gaussian(seed, rows, others=others)).compute(intervals=intervals)

    report = of(0)
    values = scalars(report, "z/")
    assert all(isinstance(value, float) for value in values.values())
    assert values["z/collapsed"] == report.collapsed
    for name, value in report.measures.items():
        if value is not None:
            assert values[f"z/{name}"] == value
    assert ("z/dead" in values, "z/rankme_low" in values) == (others > 0, intervals)
    assert ("z/lidar" in values, "z/signal_rank" in values) == (others > 1, others > 0)
    assert scalars(of(1), "z/").keys() == values.keys()


def test_a_measure_that_is_not_defined_is_a_gap():
    values = scalars(watched([torch.ones(20, 3)]).compute(intervals=False))
    assert values["collapse/collapsed"] == 3
    assert math.isnan(values["collapse/rankme"])


def test_the_picture_shows_more_with_other_views():
    one, two = (watched(gaussian(0, others=others)).compute(intervals=False) for others in (0, 1))
    assert (picture(one).shape, picture(two).shape) == ((350, 500, 3), (350, 900, 3))
    assert picture(one).std() > 1


class WandbLogger:
    """Takes a picture as Lightning's logger of this name does."""

    def __init__(self):
        self.pictures = []

    def log_image(self, key, images, step=None):
        self.pictures.append((key, images[0].shape, step))


class MLFlowLogger:
    """Holds a run and a client, as Lightning's logger of this name does."""

    run_id = "run"

    def __init__(self):
        self.pictures, self.experiment = [], self

    def log_image(self, run_id, image, artifact_file):
        self.pictures.append((run_id, image.shape, artifact_file))


class TensorBoardCallback:
    tb_writer = None  # as on all processes but the first


class WandbCallback:
    pass


class MLflowCallback:
    pass


def test_pictures_go_to_lightning_s_loggers_by_their_own_methods():
    wandb, mlflow = WandbLogger(), MLFlowLogger()
    assert send(wandb, "collapse/spectrum", PIXELS.copy, 7)
    assert send(mlflow, "collapse/spectrum", PIXELS.copy, 7)
    assert wandb.pictures == [("collapse/spectrum", (3, 5, 3), 7)]
    assert mlflow.pictures == [("run", (3, 5, 3), "collapse/spectrum-7.png")]
    assert not send(object(), "collapse/spectrum", lambda: pytest.fail("it draws"), 7)


def test_pictures_go_to_the_runs_that_hugging_face_s_callbacks_log_to(monkeypatch):
    wandb, mlflow, seen = types.ModuleType("wandb"), types.ModuleType("mlflow"), []
    wandb.Image, wandb.log = np.shape, lambda values, commit: seen.append((values, commit))
    mlflow.log_image = lambda image, artifact_file: seen.append((image.shape, artifact_file))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for callback in (TensorBoardCallback(), WandbCallback(), MLflowCallback()):
        assert send(callback, "spectrum", PIXELS.copy, 7)
    assert seen == [({"spectrum": (3, 5, 3)}, False), ((3, 5, 3), "spectrum-7.png")]


def lines_of(watch, steps, size=8, dim=4):
    """What a watch says of random batches, and the samples of its reports by step."""
    g, said, samples = torch.Generator().manual_seed(0), [], {}
    for step in steps:
        if watch.wants(step):
            watch.update(step, [torch.randn(size, dim, generator=g)])
        if report := watch.report(step, said.append):
            samples[step] = report.samples
    return said, samples


@pytest.mark.parametrize(("every", "window"), [(1, 1), (3, 3), (7, 5), (100, 5)])
def test_a_window_brings_ten_rows_per_dimension_or_all_there_are(every, window):
    watch = Watch(every, intervals=False, compare=True)
    said, samples = lines_of(watch, range(1, 2 * every + 1))
    assert (said, watch.window) == ([], window)
    assert samples == {every: 8 * window, 2 * every: 8 * window}
    assert sum(map(watch.wants, range(1, 1001))) == sum(-step % every < window for step in range(1, 1001))


def test_a_window_that_lacks_steps_says_so():
    said, samples = lines_of(Watch(7, intervals=False, compare=True), range(5, 15))
    assert samples == {7: 24, 14: 40}
    assert said == [
        "the report on collapse at step 7 has 3 of the 5 steps of its window: training began or resumed within it, and "
        "windows are not saved"
    ]


@pytest.mark.parametrize(
    ("source", "outputs", "message"),
    [
        ("z", {"loss": 1}, "no embeddings 'z': outputs have the keys loss, and object has no such attribute"),
        ("z", None, "no embeddings 'z': outputs have NoneType"),
        (["z", "y"], {"z": torch.ones(2, 2)}, "no embeddings 'y'"),
        (lambda *_: None, None, "as NoneType; give a tensor"),
        (lambda *_: [], None, "as nothing; give a tensor"),
        ("z", {"z": 3.0}, "as float; give a tensor"),
    ],
)
def test_embeddings_that_are_not_there_are_refused(source, outputs, message):
    with pytest.raises(ValueError, match=message):
        embeddings_of(source, object(), None, outputs)


def test_embeddings_are_named_by_outputs_before_the_module():
    z = torch.ones(2, 2)
    module = types.SimpleNamespace(z=2 * z, head=types.SimpleNamespace(last=3 * z))
    for source, outputs, factor in (("z", {"z": z}, 1), ("z", {}, 2), ("head.last", None, 3), ("z", module, 2)):
        (view,) = embeddings_of(source, module, None, outputs)
        assert torch.equal(view, factor * z)


@pytest.mark.parametrize(
    ("module", "library", "name"),
    [
        ("torchmetrics", "torchmetrics", "CollapseMetric"),
        ("lightning", "lightning", "CollapseMonitor"),
        ("transformers", "transformers", "CollapseCallback"),
    ],
)
def test_without_its_library_a_module_says_what_to_install(module, library, name):
    code = f"""
import sys
sys.modules["{library}"] = sys.modules["pytorch_lightning"] = None
try:
    import dyncollapse.integrations.{module}
except ImportError as error:
    print(error, error.__suppress_context__)
"""
    (line,) = run(["-c", code]).stdout.splitlines()
    assert line.startswith(f"{name} needs {library}: ")
    assert line.endswith("pip install 'dyncollapse[integrations]' True")
