"""Part 4: thousands of toy networks at once, against the CPU and against the arithmetic that every step needs."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.timing import seconds_per_call
from dyncollapse.dynamics.training import train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.pairs import Pairs

# The toy problem of the speed benchmarks: one layer, Eq. 2, fresh noise at every step, float32.
DIM, AUG_DIM, AUG_STRENGTH, DATA_VAR, BATCH, LR = 16, 8, 1.5, 0.5, 128, 0.05
OVER_FLOOR = 1.6  # the target
# Relative difference of final weight products between device and CPU, same runs and batches, float64: at a stable
# learning rate steps do not amplify rounding.
AGREES = 1e-9


def measure(site: Site) -> PartResult:
    """Measure run-steps per second on the device, on the CPU and of the device's floor, and compare both results.

    Args:
        site: Where to work.

    Returns:
        Rates and the difference between device and CPU.
    """
    scale, cpu = site.scale, torch.device("cpu")
    rates: dict[str, float] = {}
    tried: tuple[tuple[str, Callable[[int, int, torch.device], object], int, torch.device], ...] = (
        ("device", ensemble, scale.runs, site.device),
        ("floor", floor, scale.runs, site.device),
        ("cpu", ensemble, scale.cpu_runs, cpu),
    )
    for name, work, runs, device in tried:
        site.tell(f"{name}: {runs} runs at once, {scale.steps} steps")
        seconds = seconds_per_call(partial(work, runs, scale.steps, device), device, scale.seconds / 2)
        rates[name] = runs * scale.steps / seconds
        site.tell(f"{name}: {rates[name]:.4g} run-steps/s")
        site.save(PartResult([Finding(f"rate of the {name}", rate, "run-steps/s") for name, rate in rates.items()]))
    threads = torch.get_num_threads()
    site.tell(f"comparing {scale.compared_runs} runs of device and CPU in float64")
    findings = [
        Finding(f"{scale.runs} runs at once", rates["device"], "run-steps/s"),
        Finding(f"{scale.cpu_runs} runs at once on the CPU, {threads} threads", rates["cpu"], "run-steps/s"),
        Finding("rate of the device over that of the CPU", rates["device"] / rates["cpu"]),
        Finding(
            "floor: two matrix products, an exponential and the random numbers alone", rates["floor"], "run-steps/s"
        ),
        site.target("time over that of the floor", rates["floor"] / rates["device"], OVER_FLOOR, least=False),
        Finding(
            f"relative difference of final weights between device and CPU, {scale.compared_runs} runs, float64",
            _distance(scale.compared_runs, scale.steps, site.device),
            limit=AGREES,
        ),
    ]
    return PartResult(findings, {"run_steps_per_second": rates, "runs": scale.runs, "steps": scale.steps})


def ensemble(runs: int, steps: int, device: torch.device | str = "cpu") -> Trajectory:
    """Train runs at once, each on fresh batches of its own.

    Args:
        runs: Number of runs.
        steps: Steps of each.
        device: Where to compute.

    Returns:
        First and last weights.
    """
    weights = gaussian_init([DIM, DIM], torch.Generator().manual_seed(0), (runs,))
    task = _task().to(torch.float32, torch.device(device))
    stream = task.stream(BATCH, torch.Generator(device).manual_seed(0), (runs,))
    return train(tuple(w.to(device, torch.float32) for w in weights), stream, lr=LR, steps=steps, records=2)


def floor(runs: int, steps: int, device: torch.device | str = "cpu") -> Tensor:
    """Do only what every step needs: two N x N x d products, an N x N exponential and the batch's random numbers.

    Args:
        runs: Number of runs.
        steps: Steps of each.
        device: Where to compute.

    Returns:
        A tensor without meaning; only the time counts.
    """
    generator = torch.Generator(device).manual_seed(0)
    z, x = torch.randn(2, runs, BATCH, DIM, generator=generator, device=device) / 4
    weights, out = z.new_empty(runs, BATCH, BATCH), torch.empty_like(x)
    for _ in range(steps):
        for width in (DIM, AUG_DIM):
            torch.randn(runs, BATCH, width, generator=generator, device=device)
        torch.bmm(z, z.mT, out=weights)
        weights.exp2_()  # two to four times as fast as exp_ on a CPU, and equally useful here
        torch.bmm(weights, x, out=out)
    return out


def _task() -> GaussianTask:
    return GaussianTask.block(DIM, AUG_DIM, AUG_STRENGTH, DATA_VAR)


def _distance(runs: int, steps: int, device: torch.device) -> float:
    """Relative difference of final weights between device and CPU, on one fixed batch per run for both."""
    weights = gaussian_init([DIM, DIM], torch.Generator().manual_seed(0), (runs,))
    pairs = _task().sample(BATCH, torch.Generator().manual_seed(1), (runs,))

    def end(device: torch.device) -> Tensor:
        moved = Pairs(pairs.anchor.to(device), pairs.positive.to(device), pairs.views)
        path = train(tuple(w.to(device) for w in weights), moved, lr=LR, steps=steps, records=2)
        return path.product[-1].cpu()

    expected = end(torch.device("cpu"))
    return float((end(device) - expected).norm() / expected.norm())
