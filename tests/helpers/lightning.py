"""A module to train with Lightning in a moment, and what its loggers and outputs hold."""

import os

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from dyncollapse import ntxent

ROWS, DIM = 16, 4


def batches(count):
    g = torch.Generator().manual_seed(0)
    return torch.utils.data.DataLoader([torch.randn(ROWS, 6, generator=g) for _ in range(count)], batch_size=None)


class Recorder(Logger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.metrics = []

    name, version = "recorder", 0

    @property
    @rank_zero_experiment
    def experiment(self):
        return self

    @rank_zero_only
    def log_hyperparams(self, *_arguments, **_keywords):
        pass

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, metrics))


def encoder(base):
    """A class of modules that return two views of a batch, on one base class or another."""

    class Module(base):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(6, DIM)

        def _step(self, x):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(int(self.global_step)))
            z, z_pos = self.layer(x), self.layer(x + 0.1 * noise)
            self.pair = (z.detach(), z_pos.detach())
            return {"loss": ntxent(z, z_pos, temperature=0.5), "z": z, "z_pos": z_pos}

        def training_step(self, batch, _index):
            return self._step(batch)

        def validation_step(self, batch, _index):
            return self._step(batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module


class Encoder(encoder(pl.LightningModule)):
    @staticmethod
    def of(base):
        return encoder(base)()


class Keeper(pl.Callback):
    """Keeps the outputs of all steps, and what other callbacks may read."""

    def __init__(self):
        self.outputs, self.validated, self.callback_metrics = [], [], {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outputs.append({name: value.detach().clone() for name, value in outputs.items()})

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self.validated.append({name: value.clone() for name, value in outputs.items()})

    def on_train_end(self, trainer, pl_module):
        self.callback_metrics = dict(trainer.callback_metrics)


def fit(module, folder, *callbacks, logger=None, package=pl, val_dataloaders=None, ckpt_path=None, save=None, **limits):
    """Train for a few steps on one thread, and return the logger."""
    logger = logger or Recorder()
    trainer = package.Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": -1, **limits},
    )
    trainer.fit(module, batches(4), val_dataloaders, ckpt_path=ckpt_path)
    if save:
        trainer.save_checkpoint(save)
    return logger


def processes(rank, meeting, out):
    """Train on one of two processes, and save the report, the rows of the window and what was logged."""
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy

    from dyncollapse.integrations.lightning import CollapseMonitor

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    callback, keeper, logger = CollapseMonitor("z", every=3), Keeper(), Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", cluster_environment=LightningEnvironment()),
        logger=logger,
        callbacks=[callback, keeper],
        default_root_dir=os.path.dirname(out),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=3,
    )
    g = torch.Generator().manual_seed(rank)
    data = torch.utils.data.DataLoader([torch.randn(ROWS, 6, generator=g) for _ in range(3)], batch_size=None)
    trainer.fit(Encoder(), data)
    rows = [outputs["z"] for outputs in keeper.outputs[-2:]]
    torch.save((callback.report.as_values(), rows, len(logger.metrics)), f"{out}{rank}")
    torch.distributed.destroy_process_group()
