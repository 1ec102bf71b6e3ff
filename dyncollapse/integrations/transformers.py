"""A callback of Hugging Face's Trainer that reports on collapse."""

import logging
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.integrations.pictures import send
from dyncollapse.integrations.reporting import picture, scalars
from dyncollapse.integrations.watch import Source, Watch, embeddings_of
from dyncollapse.runtime.extras import missing

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise missing(error, "transformers", "integrations", "CollapseCallback") from None

logger = logging.getLogger(__name__)


class CollapseCallback(TrainerCallback):
    """Reports on collapse during training by Hugging Face's Trainer, through `trainer.log`.

    Numbers reach every tracker that the trainer reports to; the picture of the spectrum goes to TensorBoard, Weights &
    Biases and MLflow. It looks at what the model returns in training, in the last steps before each report alone
    (`Watch`). Processes of one training are joined, and each has the report. It does not see the replicas of
    `DataParallel`: start several GPUs by torchrun or accelerate.

    Steps are the trainer's, which go on when training is resumed. Embeddings are not in checkpoints: resumed within a
    window, the next report is on the steps since, and a line says so. Embeddings that allow no report, such as NaN, are
    named in a line, and training goes on.

    Attributes:
        report: The latest report; None before.

    References:
        docs/how-to/monitor-training.md (Hugging Face; a table of times).

    Examples:
        >>> callback = CollapseCallback("hidden_states", every=500)  # then callback.attach(trainer)
        >>> callback.report is None
        True
    """

    def __init__(
        self,
        embeddings: Source,
        *,
        every: int,
        prefix: str = "collapse/",
        draw: bool = True,
        intervals: bool = False,
        compare: bool = True,
        **options: Any,
    ) -> None:
        """Choose what to watch, and how often.

        Args:
            embeddings: Where the embeddings of a batch are. A name: a key of what the model returns, or an attribute of
                it or of the model; "hidden_states" is the last of them, for models with `output_hidden_states=True`. A
                list of names: one per view. Or a function of (model, inputs, outputs) that returns one view or a tuple
                of views. Each view is (n, d); of (n, tokens, d) the mean over the tokens of `attention_mask` is taken.
            every: Steps of the optimiser between reports.
            prefix: Text in front of the names of numbers and picture.
            draw: Send the picture of the spectrum to trackers that take pictures.
            intervals: As for `Monitor.compute`.
            compare: As for `Monitor.compute`: with two views of d = 2048, a report takes 27 times as long as without.
            **options: Those of `Monitor`: `views`, `space`, `fast`, `sample`, `seed`.

        Raises:
            ValueError: For `every` below 1, and for options that `Monitor` refuses.
        """
        if every is None:
            raise ValueError("every is None; give a whole number of steps from 1 on")
        self.embeddings, self.prefix, self.draw = embeddings, prefix, draw
        self.watch = Watch(every, intervals=intervals, compare=compare, **options)
        self.report: EmbeddingReport | None = None
        self._trainer: Any = None
        self._hook: Any = None

    def attach(self, trainer: Any) -> None:
        """Add this callback to a trainer, through which it then logs.

        Args:
            trainer: The `transformers.Trainer`.
        """
        self._trainer = trainer
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look at what the model returns from now on."""
        if self._trainer is None:
            raise ValueError("CollapseCallback logs through its trainer; add it by callback.attach(trainer)")
        if self._hook is None:
            self._hook = model.register_forward_hook(self._look, with_kwargs=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the model no longer."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report where it is due."""
        report = self.watch.report(state.global_step, logger.warning if state.is_world_process_zero else _say_nothing)
        if report is None:
            return
        self.report = report
        self._trainer.log(scalars(report, self.prefix))
        if self.draw and state.is_world_process_zero:
            drawn = cache(partial(picture, report))
            for callback in self._trainer.callback_handler.callbacks:
                send(callback, f"{self.prefix}spectrum", drawn, state.global_step)

    def _look(self, model: Any, positional: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> None:
        """Add the embeddings of one call of the model in training, if a report is near."""
        step = self._trainer.state.global_step + 1
        if not (model.training and self.watch.wants(step)):
            return
        inputs = named or (positional[0] if positional else {})
        if self.embeddings == "hidden_states":
            views = [embeddings_of("hidden_states", model, inputs, outputs)[-1]]
        else:
            views = embeddings_of(self.embeddings, model, inputs, outputs)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        self.watch.update(step, [_pooled(view.detach(), mask) for view in views])


def _pooled(view: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the tokens that a mask keeps, in float32 at least; a matrix as it is."""
    if view.ndim != 3:
        return view
    view = view.to(torch.promote_types(view.dtype, torch.float32))
    if mask is None or mask.shape != view.shape[:2]:
        return view.mean(1)
    kept = mask.to(view).unsqueeze(-1)
    return (view * kept).sum(1) / kept.sum(1).clamp_min(1.0)


def _say_nothing(line: str) -> None:
    """Leave a line to the first process."""
