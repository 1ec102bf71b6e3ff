"""A callback of Lightning that reports on collapse."""

from functools import cache, partial
from typing import Any

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.integrations.pictures import send
from dyncollapse.integrations.reporting import picture, scalars
from dyncollapse.integrations.watch import Source, Watch, embeddings_of
from dyncollapse.runtime.extras import missing

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError:
        raise missing(error, "lightning", "integrations", "CollapseMonitor") from None


class CollapseMonitor(Callback):
    """Reports on collapse during training or on each validation epoch, to the loggers of the trainer.

    Numbers are logged by `log_dict` of the module, so that other callbacks can use them, and sent to every logger at
    once: Lightning itself would drop those between multiples of `log_every_n_steps`. The picture of the spectrum goes
    to TensorBoard, Weights & Biases and MLflow; a line says which other loggers get numbers only. Every process must
    have this callback; their embeddings are joined, and each process has the report. It works in `lightning.pytorch`
    and in `pytorch_lightning`.

    During training it looks at the last batches before each report alone (`Watch`). Checkpoints hold the number of
    batches, not the embeddings: resumed within these batches, the next report is on those since, and a line says so.
    Embeddings that allow no report, such as NaN, are named in a line, and training goes on.

    Attributes:
        report: The latest report; None before.
        batches: Number of training batches so far.

    References:
        docs/how-to/monitor-training.md (Lightning; a table of times).

    Examples:
        >>> callback = CollapseMonitor(["z", "z_pos"], every=500)  # for Trainer(callbacks=[callback])
        >>> callback.report is None
        True
    """

    def __init__(
        self,
        embeddings: Source,
        *,
        every: int | None,
        prefix: str = "collapse/",
        draw: bool = True,
        intervals: bool = False,
        compare: bool = True,
        **options: Any,
    ) -> None:
        """Choose what to watch, and how often.

        Args:
            embeddings: Where the embeddings (n, d) of a batch are. A name: a key or attribute of what `training_step`
                (or `validation_step`) returns, or else an attribute of the module. A list of names: one per view. Or a
                function of (module, batch, outputs) that returns one view or a tuple of views.
            every: Training batches of a process between reports; None for a report on each validation epoch instead,
                on all its batches.
            prefix: Text in front of the names of numbers and picture.
            draw: Send the picture of the spectrum to loggers that take pictures.
            intervals: As for `Monitor.compute`.
            compare: As for `Monitor.compute`: with two views of d = 2048, a report takes 27 times as long as without.
            **options: Those of `Monitor`: `views`, `space`, `fast`, `sample`, `seed`.

        Raises:
            ValueError: For `every` below 1, and for options that `Monitor` refuses.
        """
        self.embeddings, self.prefix, self.draw = embeddings, prefix, draw
        self.watch = Watch(every, intervals=intervals, compare=compare, **options)
        self.report: EmbeddingReport | None = None
        self.batches = 0
        self._named: set[str] = set()  # loggers without pictures of which a line has told

    @property
    def state_key(self) -> str:
        """Name of this callback's state in checkpoints."""
        return f"dyncollapse.CollapseMonitor {self.prefix}"

    def state_dict(self) -> dict[str, Any]:
        """Return what checkpoints hold: the number of batches."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting batches where a checkpoint was made."""
        self.batches = int(state_dict["batches"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the embeddings of a training batch if a report is near, and report where it is due."""
        if self.watch.every is None:
            return
        self.batches += 1
        if self.watch.wants(self.batches):
            self.watch.update(self.batches, embeddings_of(self.embeddings, pl_module, batch, outputs))
            self._report(trainer, pl_module, self.batches)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the embeddings of a validation batch, if reports are on validation epochs."""
        if self.watch.every is None and not trainer.sanity_checking:
            self.watch.update(batch_idx + 1, embeddings_of(self.embeddings, pl_module, batch, outputs))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report on a validation epoch, if reports are on these."""
        if self.watch.every is None and not trainer.sanity_checking:
            self._report(trainer, pl_module, trainer.global_step)

    def _report(self, trainer: Any, module: Any, step: int) -> None:
        report = self.watch.report(step, trainer.print)
        if report is None:
            return
        self.report = report
        values = scalars(report, self.prefix)
        # Every process has the same numbers; their mean, where Lightning asks for one, is the same again.
        module.log_dict(values, logger=False, sync_dist=trainer.world_size > 1)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        if not (self.draw and trainer.is_global_zero):
            return
        drawn = cache(partial(picture, report))
        for logger in trainer.loggers:
            kind = type(logger).__name__
            if not send(logger, f"{self.prefix}spectrum", drawn, trainer.global_step) and kind not in self._named:
                self._named.add(kind)
                trainer.print(f"{kind} gets the numbers of the report on collapse, not the picture of the spectrum")
