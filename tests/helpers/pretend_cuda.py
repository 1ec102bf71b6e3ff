"""A GPU that is not there: tensors that say they are on it, compute on the CPU, and refuse what a real one would.

For tests on machines without a GPU. A tensor that was moved or made "on cuda" carries a mark; its `device` says cuda,
a call that mixes it with a CPU's tensor (of more than one number) raises, and so does `numpy()`. Calls inside of
functions that torch itself writes in Python are not looked at. Nothing is learned about numbers, speed or memory.
"""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
DEVICE, IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__
GETTERS = {DEVICE, IS_CUDA}
HOST_READS = {torch.Tensor.numpy, torch.Tensor.__array__}
# What may take a tensor of either device: copies between them, and indices of the CPU.
COPIES = {torch.Tensor.copy_, torch.Tensor.data.__set__, torch._has_compatible_shallow_copy_type}
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


def marked(tensor):
    return getattr(tensor, "_pretends", False)


def mark(tensor, yes=True):
    tensor._pretends = yes
    return tensor


def is_cuda(device):
    return device is not None and not isinstance(device, torch.dtype) and torch.device(device).type == "cuda"


class PretendCuda(TorchFunctionMode):
    """Keeps the marks."""

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in GETTERS:
            on_gpu = marked(args[0])
            return (CUDA if on_gpu else CPU) if func == DEVICE else on_gpu
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._move(func, args, kwargs)
        if func in HOST_READS and marked(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func == torch.Tensor.__deepcopy__:  # its other argument remembers copies of both
            return mark(func(*args, **kwargs), marked(args[0]))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if marked(tensor)]
        here = [tensor for tensor in tensors if not marked(tensor) and tensor.dim()]
        if func in COPIES:
            result = func(*args, **kwargs)
            if func == torch.Tensor.data.__set__:
                mark(args[0], marked(args[1]))
            return result
        if func in INDEXING:
            if not marked(args[0]) and there:
                raise RuntimeError(f"{func.__name__}: a tensor of the CPU meets an index or a value on cuda")
        elif there and here:
            raise RuntimeError(f"{getattr(func, '__name__', func)}: tensors are on cuda:0 and on cpu")
        on_gpu = bool(there)
        if "device" in kwargs and kwargs["device"] is not None:
            on_gpu = is_cuda(kwargs["device"])
            kwargs["device"] = CPU
        result = func(*args, **kwargs)
        if on_gpu:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    mark(leaf)
        return result

    def _move(self, func, args, kwargs):
        tensor, *rest = args
        on_gpu = marked(tensor)
        if func == torch.Tensor.cpu:
            on_gpu = False
        elif func == torch.Tensor.cuda:
            func, rest, on_gpu = torch.Tensor.to, [CPU], True
        else:
            for k, given in enumerate(rest):
                if isinstance(given, torch.Tensor):
                    on_gpu, rest[k] = marked(given), given
                elif isinstance(given, str | torch.device):
                    on_gpu, rest[k] = is_cuda(given), CPU
            if kwargs.get("device") is not None:
                on_gpu = is_cuda(kwargs["device"])
                kwargs["device"] = CPU
        result = func(tensor, *rest, **kwargs)
        if on_gpu != marked(tensor) and result is tensor:
            result = tensor.clone()
        return mark(result, on_gpu)


class Generator(torch.Generator):
    """Draws on the CPU, and says where it was asked to."""

    def __new__(cls, _device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu"):
        super().__init__()
        self.asked = torch.device(device)

    @property
    def device(self):
        return CUDA if self.asked.type == "cuda" else CPU


@contextmanager
def pretend_cuda():
    """Within it, a GPU of 80 GiB."""
    properties = SimpleNamespace(total_memory=80 * 2**30, name="pretended", major=9, minor=0)
    offered = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _device: None,
        "synchronize": lambda _device=None: None,
        "empty_cache": lambda: None,
        "is_bf16_supported": lambda *_args, **_given: True,
        "reset_peak_memory_stats": lambda _device=None: None,
        "max_memory_allocated": lambda _device=None: 2**30,
        "mem_get_info": lambda _device=None: (80 * 2**30, 80 * 2**30),
        "memory_reserved": lambda _device=None: 0,
        "memory_allocated": lambda _device=None: 0,
        "get_device_properties": lambda _device=None: properties,
        "get_device_name": lambda _device=None: "pretended",
        "get_rng_state": lambda _device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda _state, _device=None: None,
    }
    with ExitStack() as stack:
        for module in (
            "torch",
            "dyncollapse.model._drawing",
            "dyncollapse.model.gaussian",
            "dyncollapse.model.streams",
        ):
            stack.enter_context(mock.patch(f"{module}.Generator", Generator))
        stack.enter_context(mock.patch.multiple(torch.cuda, **offered))
        stack.enter_context(
            mock.patch("torch.accelerator.is_available", return_value=False)
        )  # for nothing can be pinned
        stack.enter_context(PretendCuda())
        yield CUDA
