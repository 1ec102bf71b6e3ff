"""Part 2: embed many images; compute spectra and the diagnosis of both spaces."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.bridge.data.augmentations import stored_side
from dyncollapse.bridge.data.batches import batches_in_order
from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.evaluation.diagnose import diagnose_spaces
from dyncollapse.bridge.evaluation.embed import BATCH, VIEWS_OF_LOSS, Embedded, embed, view_pair
from dyncollapse.bridge.evaluation.load import LoadedEncoder, from_recipe, load_encoder
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.models.encoders import build_encoder, embedding_dim
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.synthetic_images import images_in_memory
from dyncollapse.bridge.real_scale.timing import timed
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.collapse_monitor import SPACES, CollapseMonitor
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.diagnostics.moments import Moments

# Relative error of rows in float32 against float64, after some fifty layers (measured on CPUs: 4e-7).
ROWS_AGREE = 1e-4
# Views made on the device against the CPU's, for pixels in [0, 1] divided by 0.22. Plain views are resized in integers
# on the CPU and in floats on a GPU, so some pixels differ by one level of 255; augmented views, where hues wrap.
PLAIN_AGREES, WARPED_AGREES = 1.5 / 255 / 0.22, 1e-2
# Eigenvalues relative to the largest, both from float64 sums of the same rows (measured on CPUs: 1e-15).
SPECTRUM_AGREES = 1e-10


def measure(site: Site) -> PartResult:
    """Time embedding, spectra and diagnosis on the device, and compare a part with float64 on the CPU.

    Args:
        site: Where to work; it may hold part 1's checkpoint.

    Returns:
        Times and errors.
    """
    scale, device = site.scale, site.device
    pretrained, skipped = _encoder(site)
    side = stored_side(pretrained.spec.image_size)
    images = images_in_memory(scale.embedded, side, scale.classes, device)
    site.tell(f"embedding {len(images)} images, two views of each")
    values: dict[str, Any] = {"images": len(images), "step": pretrained.step}
    embedded, values["embed_seconds"] = timed(
        lambda: embed(pretrained, images, site.folder, views=VIEWS_OF_LOSS, device=device), device
    )
    on_device = {space: tuple(rows.to(device) for rows in embedded[space]) for space in SPACES}
    findings = [
        Finding("images embedded, two views of each, float32, written to files", len(images)),
        Finding("views embedded per second", 2 * len(images) / values["embed_seconds"], "1/s"),
    ]
    site.save(PartResult(findings, values, skipped))
    values["spectra"], of_spectra = _spectra(embedded, on_device, site)
    findings += of_spectra
    site.tell("the first rows and views again, on the CPU")
    findings += _agreement(pretrained, images, embedded, site)
    site.save(PartResult(findings, values, skipped))
    site.tell("diagnosing both spaces")
    diagnosed, values["diagnose_seconds"] = timed(
        lambda: diagnose_spaces(
            Embedded(site.folder, on_device, embedded.labels, ""), pretrained.encoder, VIEWS_OF_LOSS
        ),
        device,
    )
    values["diagnosis"] = {space: report.verdict.sentence for space, report in diagnosed.reports.items()}
    findings.append(
        Finding("report on both spaces, and the alignment of layers on the CPU", values["diagnose_seconds"], "s")
    )
    site.save(PartResult(findings, values, skipped))
    site.tell("a report while training")
    findings.append(
        Finding("report while training, its window of batches included", _monitor_seconds(site, pretrained), "s")
    )
    return PartResult(findings, values, skipped)


def _encoder(site: Site) -> tuple[LoadedEncoder, list[str]]:
    """The encoder that part 1 trained and saved; an untrained one if there is none."""
    trained = checkpoints(site.folder)
    if trained:
        return load_encoder(trained[-1]), []
    recipe = resolve({**site.scale.recipe, "data": "generated", "device": "cpu"})
    untrained = from_recipe(build_encoder(recipe, 3), recipe, 3, site.folder)
    return untrained, ["part 1 left no checkpoint: the encoder is untrained"]


def _spectra(
    embedded: Embedded, on_device: dict[str, tuple[Tensor, ...]], site: Site
) -> tuple[dict[str, Any], list[Finding]]:
    """Time the spectrum of each space on the device, and compare that of its first rows with NumPy's."""
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    for space in SPACES:
        site.tell(f"spectrum of the {space}, on the device and by NumPy")
        rows, part = on_device[space][0], embedded[space][0][: site.scale.spectrum_part]
        error = _spectrum_error(part, site.device)  # first, for the device's library has to start, too
        spectrum, seconds = timed(partial(_spectrum, rows), site.device)
        values[space] = {"dim": rows.shape[1], "seconds": seconds, "eigenvalues": spectrum.tolist()}
        findings += [
            Finding(f"spectrum of the {space}, {rows.shape[1]} dimensions, in float64", seconds, "s"),
            Finding(
                f"largest error of an eigenvalue against numpy on the CPU, over the largest one, {len(part)} rows",
                error,
                limit=SPECTRUM_AGREES,
            ),
        ]
    return values, findings


def _spectrum(rows: Tensor) -> Tensor:
    moments = Moments(rows.shape[1], device=rows.device)
    moments.update(rows)
    return moments.spectrum()


def _spectrum_error(rows: Tensor, device: torch.device) -> float:
    """Largest difference from numpy's eigenvalues of the covariance in float64, over the largest eigenvalue."""
    here = _spectrum(rows.to(device)).cpu().numpy()
    exact = np.linalg.eigvalsh(np.cov(rows.numpy().astype(np.float64), rowvar=False, bias=True))[::-1]
    return float(np.abs(here - exact).max() / exact[0])


def _monitor_seconds(site: Site, pretrained: LoadedEncoder) -> float:
    """Seconds of one report of the monitor: the moments of its window of batches, and the spectra of both spaces."""
    dims = representation_dim(pretrained.encoder.backbone), embedding_dim(pretrained.encoder)
    assert pretrained.recipe is not None  # `_encoder` gives one with a recipe
    batch = pretrained.recipe.batch_size
    monitor = CollapseMonitor(every := 1560, batch, dims, Process(0, 1, site.device))
    generator = torch.Generator().manual_seed(0)
    views = {}
    for space, dim in zip(SPACES, dims, strict=True):
        z, noise = (torch.randn(batch, dim, generator=generator).to(site.device) for _ in range(2))
        views[space] = (z, z + noise / 10)
    for step in range(every - monitor.window + 1, every + 1):
        monitor.update(step, views)
    return monitor.seconds


def _agreement(pretrained: LoadedEncoder, images: HeldImages, embedded: Embedded, site: Site) -> list[Finding]:
    """Compare the first rows with the network in float64, and views of resized images between device and CPU."""
    part, side = site.scale.embedded_part, stored_side(pretrained.spec.image_size)
    (first, _), _ = _first_views(pretrained, replace(images, pixels=images.pixels[:BATCH]), site, VIEWS_OF_LOSS)
    encoder = copy.deepcopy(pretrained.encoder).cpu().double()
    with torch.inference_mode():
        exact = dict(zip(SPACES, encoder(first[:part].cpu().double()), strict=True))
    # Images of another size, which have to be resized.
    larger = images_in_memory(part, 3 * side // 2, 1, site.device)
    resized, warped = _first_views(pretrained, larger, site, "one-sided")[1]  # the plain image, and an augmented one
    findings = [
        Finding("largest difference of plain views between device and CPU", resized, limit=PLAIN_AGREES),
        Finding("mean difference of augmented views between device and CPU", warped, limit=WARPED_AGREES),
    ]
    for space in SPACES:
        rows = embedded[space][0][:part].double()
        error = float((rows - exact[space]).norm(dim=1).max() / exact[space].norm(dim=1).max())
        what = f"relative error of {len(rows)} rows of the {space} against the network in float64 on the CPU"
        findings.append(Finding(what, error, limit=ROWS_AGREE))
    return findings


def _first_views(
    pretrained: LoadedEncoder, images: HeldImages, site: Site, views: str
) -> tuple[tuple[Tensor, ...], tuple[float, float]]:
    """Both views of the first batch; their differences from the CPU's, largest for the first, mean for the second."""
    pair, size = view_pair(views, pretrained.spec.pair), pretrained.spec.image_size
    on_cpu, cpu = replace(images, pixels=images.pixels.cpu()), torch.device("cpu")
    here = next(batches_in_order(images, pair, size, batch_size=BATCH, device=site.device, workers=0, seed=0)).views
    there = next(batches_in_order(on_cpu, pair, size, batch_size=BATCH, device=cpu, workers=0, seed=0)).views
    first, second = ((a.cpu() - b).abs() for a, b in zip(here, there, strict=True))
    return here, (float(first.max()), float(second.mean()))
