"""With the real loggers of Weights & Biases and MLflow, where they are installed; both write to a local folder."""

import pytest
from helpers import lightning, transformers

from dyncollapse.integrations.lightning import CollapseMonitor
from dyncollapse.integrations.transformers import CollapseCallback

REASON = "not installed: pip install wandb mlflow"
wandb = pytest.importorskip("wandb", reason=REASON)
mlflow = pytest.importorskip("mlflow", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore")  # of these libraries
PNG = b"\x89PNG"


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """The address of a local MLflow, with Weights & Biases offline."""
    address = f"sqlite:///{tmp_path}/mlflow.db"
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(address)
    yield address
    wandb.teardown()


def pictures(folder):
    found = list(folder.rglob("*spectrum*.png"))
    assert all(path.read_bytes().startswith(PNG) for path in found)
    return sorted(path.name for path in found)


def check(folder, history, metrics, report, steps):
    """Compare what both services hold with the last report's values."""
    names = pictures(folder)
    assert [name for name in names if "-" in name] == [f"spectrum-{step}.png" for step in steps]  # MLflow's
    assert len(names) == 2 * len(steps)
    measured = {name: value for name, value in report.measures.items() if value is not None}
    for name, value in (measured | {"collapsed": report.collapsed}).items():
        assert metrics[f"collapse/{name}"] == pytest.approx(value)
        assert history[name] == pytest.approx(value)


def test_lightning_s_loggers_get_numbers_and_pictures(tracking, tmp_path):
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    callback = CollapseMonitor(["z", "z_pos"], every=3)
    logged = MLFlowLogger(tracking_uri=tracking, artifact_location=str(tmp_path / "artifacts"))
    loggers = [WandbLogger(save_dir=str(tmp_path), project="collapse"), logged]
    lightning.fit(lightning.Encoder(), tmp_path, callback, logger=loggers, max_steps=7, log_every_n_steps=1)
    summary = dict(loggers[0].experiment.summary)
    assert summary["trainer/global_step"] == 6
    wandb.finish()
    metrics = logged.experiment.get_run(logged.run_id).data.metrics
    history = {name.removeprefix("collapse/"): value for name, value in summary.items()}
    check(tmp_path, history, metrics, callback.report, (3, 6))


@pytest.mark.usefixtures("tracking")
def test_hugging_face_s_trainer_reports_numbers_and_pictures(tmp_path):
    mlflow.create_experiment("collapse", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("collapse")
    callback = CollapseCallback("hidden_states", every=4)
    transformers.trained(tmp_path, callback, steps=8, report_to=["wandb", "mlflow"])
    summary = dict(wandb.run.summary)
    wandb.finish()
    metrics = mlflow.get_run(mlflow.last_active_run().info.run_id).data.metrics
    mlflow.end_run()
    history = {name.removeprefix("train/collapse/"): value for name, value in summary.items()}
    check(tmp_path, history, metrics, callback.report, (4, 8))
