"""Train in one process, or in several under torchrun that share batch, statistics, loss and gradients."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dyncollapse.runtime.settings import SettingError

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Process:
    """One of the processes that train together.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        device: Where this process computes.

    Examples:
        >>> second = Process(rank=1, count=4, device=torch.device("cpu"))
        >>> second.first, second.share(128)
        (False, slice(32, 64, None))
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's rows of a whole batch.

        Args:
            batch_size: Pairs in the whole batch.

        Returns:
            The rows.

        Raises:
            SettingError: If the processes cannot share the batch evenly.
        """
        if batch_size % self.count:
            near = max(1, batch_size // self.count) * self.count
            raise SettingError(
                f"`batch_size` is {batch_size}, which {self.count} processes cannot share evenly; try {near}"
            )
        each = batch_size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)


@contextmanager
def join_processes(device: str) -> Iterator[Process]:
    """Join the process group if torchrun started this process; leave it when the context ends.

    Args:
        device: "cpu", "cuda" or "cuda:N". With several processes each takes a GPU of its own.

    Yields:
        This process; without torchrun the only one.

    Raises:
        SettingError: If several processes would share one GPU.
        ValueError: If there are more processes than GPUs.

    Examples:
        >>> with join_processes("cpu") as process:
        ...     process.count, process.first
        (1, True)
    """
    count, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device.startswith("cuda") and count > 1:
        if device != "cuda":
            raise SettingError(f"`device` is {device}, but {count} processes take a GPU each; give `device` cuda")
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {rank} has no GPU: this machine has {torch.cuda.device_count()}; lower --nproc-per-node"
            )
        device = f"cuda:{local}"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Process(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Process(rank, count, chosen)
    finally:
        dist.destroy_process_group()


def gather(rows: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m d"]:
    """Gather the rows of all processes, with gradients for the local rows.

    Args:
        rows: Rows of this process.
        count: Number of processes.

    Returns:
        All rows in the order of ranks, m = n * count.

    Examples:
        >>> rows = torch.ones(3, 2)
        >>> gather(rows, count=1).shape
        torch.Size([3, 2])
    """
    gathered: Tensor = rows if count == 1 else _Gather.apply(rows)
    return gathered


# torch.distributed.nn has these two functions, but deprecates them since torch 2.14.
class _Gather(torch.autograd.Function):
    """All-gather whose backward sums the gradients for the local rows over all processes."""

    @staticmethod
    def forward(_context: FunctionCtx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_context: FunctionCtx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    """All-reduce whose backward sums the gradients over all processes."""

    @staticmethod
    def forward(_context: FunctionCtx, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(_context: FunctionCtx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def gather_values(value: ValueT, count: int) -> list[ValueT]:
    """Gather a small Python value from every process, by rank."""
    if count == 1:
        return [value]
    values = [value] * count
    dist.all_gather_object(values, value)
    return values


def synchronise_norms(module: nn.Module, process: Process) -> nn.Module:
    """Replace every BatchNorm by one over the batch of all processes: torch's on CUDA, else `GlobalBatchNorm`.

    Args:
        module: The network, changed in place; parameters and statistics stay the same.
        process: This process.

    Returns:
        The network, or the new norm if the network is a norm itself.

    Raises:
        ValueError: For a kind of BatchNorm without such a form on the CPU.
    """
    if process.count == 1:
        return module
    if process.device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's, and timm's own norms with an activation

        return convert_sync_batchnorm(module)
    return _with_global_norms(module)


def _with_global_norms(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise ValueError(
                f"a {type(module).__name__} cannot share its statistics between processes on the CPU; use one process"
            )
        return GlobalBatchNorm.of(module)
    for name, child in module.named_children():
        module.add_module(name, _with_global_norms(child))
    return module


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all processes, on CPUs, which torch's SyncBatchNorm does not support.

    Training requires a process group, see `join_processes`. In evaluation mode it is torch's BatchNorm.

    Examples:
        >>> norm = nn.BatchNorm1d(2).eval()
        >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> torch.equal(GlobalBatchNorm.of(norm)(rows), norm(rows))
        True
    """

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> "GlobalBatchNorm":
        """Make one from a BatchNorm of a single process.

        Args:
            norm: The norm, whose parameters, statistics and settings are shared.

        Returns:
            The new norm.
        """
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
        shared.num_batches_tracked = norm.num_batches_tracked
        return shared.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch's name)
        if input.ndim < 2:
            raise ValueError(f"expected rows with channels, got shape {tuple(input.shape)}")

    def forward(self, input: Float[Tensor, "n c *rest"]) -> Float[Tensor, "n c *rest"]:  # noqa: A002 (torch's name)
        """Normalise by mean and variance over all processes; in evaluation mode by the running statistics.

        Args:
            input: Rows of this process.

        Returns:
            Normalised rows.
        """
        if not self.training:
            return super().forward(input)
        dtype, input = input.dtype, input.float() if input.dtype.itemsize < 4 else input  # noqa: A001
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        count = dist.get_world_size() * input.numel() // input.shape[1]
        mean = _Sum.apply(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum or 0.0)
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        out = out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out
        return out.to(dtype)
