"""Memory that ran out, as one type of error."""

import pytest
import torch

from dyncollapse.runtime.out_of_memory import OutOfMemory, out_of_memory_raised


def test_a_tensor_beyond_the_memory_is_an_error_of_its_own():
    with pytest.raises(OutOfMemory, match="DefaultCPUAllocator") as error, out_of_memory_raised():
        torch.empty(2**60, dtype=torch.uint8)
    assert "\n" not in str(error.value)


def test_a_gpus_is_the_same():
    with pytest.raises(OutOfMemory, match=r"^CUDA out of memory$"), out_of_memory_raised():
        raise torch.OutOfMemoryError("CUDA out of memory\nmore")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit the memory format"), ValueError("memory")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, out_of_memory_raised():
        raise error
    assert raised.value is error
