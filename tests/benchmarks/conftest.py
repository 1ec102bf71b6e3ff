import pytest

from dyncollapse import recycle_freed_memory


@pytest.fixture(scope="session", autouse=True)
def allocator_of_the_commands():
    recycle_freed_memory()
