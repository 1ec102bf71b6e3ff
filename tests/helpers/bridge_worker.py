"""What each of several processes does in the test that they train as one; a script under torchrun's variables."""

import json
import sys
from pathlib import Path

import torch
from helpers.bridge import small, three_steps

from dyncollapse.bridge import build_encoder, build_trainer, contrast, join_processes, open_data, pretrain
from dyncollapse.bridge.training.distributed import synchronise_norms
from dyncollapse.bridge.training.pretraining import training_batches


def work(out: Path, cases: dict[str, dict[str, object]]) -> None:
    """Save loss, gradients and statistics of one float64 step of each case, and train a run."""
    images = open_data("digits").train
    with join_processes("cpu") as process:
        for name, given in cases.items():
            recipe = small(**given)
            batch = next(training_batches(build_trainer(recipe, process, len(images), 1), images, 0))
            encoder = synchronise_norms(build_encoder(recipe, 1).double(), process)
            network = torch.nn.parallel.DistributedDataParallel(encoder) if process.count > 1 else encoder
            loss, _ = contrast(network, [view.double() for view in batch.views], recipe, process)
            loss.backward()
            gradients = {n: p.grad for n, p in encoder.named_parameters()}
            found = {"loss": loss.detach(), "gradients": gradients, "state": encoder.state_dict()}
            torch.save(found, out / f"{name}-{process.count}-{process.rank}.pt")
        recipe = three_steps(monitor_every=1, lr=0.05)
        pretrain(recipe, out / f"run-{process.count}", process)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), json.loads(sys.argv[2]))
