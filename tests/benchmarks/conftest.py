import pytest

from dyncollapse import recycle_freed_memory


@pytest.fixture(scope="session", autouse=True)
def allocator_of_the_commands():
    recycle_freed_memory()


def pytest_terminal_summary(terminalreporter, config):
    """Below the table of times: what each benchmark measured besides, as the peers that ran in turns with ours."""
    session = getattr(config, "_benchmarksession", None)
    told = [bench for bench in getattr(session, "benchmarks", ()) if bench.extra_info]
    if told:
        terminalreporter.section("measured besides")
    for bench in told:
        facts = "; ".join(f"{name}: {value}" for name, value in bench.extra_info.items())
        terminalreporter.line(f"{bench.name}: median {bench.stats.median:.3g} s; {facts}")
