import pytest
import torch
from hypothesis import settings

settings.register_profile("identities", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("identities")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


# Every test that draws random numbers through this fixture runs on three seeds.
@pytest.fixture(params=(0, 1, 2), ids="seed{}".format)
def generator(request):
    return torch.Generator().manual_seed(request.param)
