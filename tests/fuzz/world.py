"""Small valid inputs of every kind, from which tries are made, and the command line that reads each."""

import io
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from helpers.programs import changed
from PIL import Image
from safetensors.torch import save_file

from fuzz.runner import Runner, Try

ROWS, DIM = 24, 6
NETWORK = ("--arch", "resnet10-narrow", "--stem", "cifar")
TOY = ("--dim", "4", "--runs", "2", "--steps", "20", "--batch-size", "8", "--pool", "64", "--flow-batches", "1")
GRID = ("sweep", *changed(TOY, "--steps", "5"), "--out", "grid", "--aug-strength", "0.5,1.5")
TRAINING = (
    *("--data", "images", *NETWORK, "--augment", "cifar", "--image-size", "16", "--projector", "linear"),
    *("--out-dim", "4", "--pipeline", "memory", "--epochs", "2", "--batch-size", "4", "--optimiser", "sgd"),
    *("--lr", "0.1", "--warmup-epochs", "0", "--precision", "float32", "--device", "cpu", "--workers", "0"),
    *("--log-every", "1", "--monitor-every", "1", "--checkpoint-every", "2", "--no-tensorboard"),
)
READING = ("--checkpoint", "run", "--data", "images")
RUN = ("run", "images")
SHARD = "shard.tar"
EARLIER, LAST = "run/checkpoints/step-00000002.pt", "run/checkpoints/step-00000004.pt"
# A valid use of each command, and the inputs it needs. A command that is missing here is tried with no base.
BASES: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("simulate",): ((*TOY, "--out", "out"), ()),
    ("verify",): (("--claim", "lemma-1"), ()),
    ("help",): (("collapse",), ()),
    # Without --copy it would serve its page until Ctrl-C; with it, any try writes a file or is refused.
    ("explore",): (("--copy", "page.py"), ()),
    ("diagnose",): (("a.npy", "--positives", "b.npy"), ("a.npy", "b.npy")),
    ("sweep",): ((*TOY, "--out", "grid", "--dry-run"), ("grid",)),
    ("collect",): (("grid",), ("grid",)),
    ("predict",): (
        ("--data", "images", "--image-size", "8", "--directions", "4", "--loss", "spectral", "--out", "out"),
        ("images",),
    ),
    ("bridge", "pretrain"): ((*TRAINING, "--out", "out"), ("images",)),
    ("bridge", "embed"): ((*READING, "--out", "out"), RUN),
    ("bridge", "diagnose"): (READING, RUN),
    ("bridge", "probe"): (READING, RUN),
    ("bridge", "table"): (("run",), ("run",)),
    # To train takes minutes, so a file stands where its folder would be: only what is refused before it is tried.
    ("bridge", "check"): (("--short", "--seeds", "1", "--epochs", "1", "--out", "a.npy"), ("a.npy",)),
}
ARRAYS = ("a.npy", "a.npz", "a.pt", "legacy.pth", "a.safetensors")
TABLES = ("a.csv", "a.tsv", "a.parquet", "columns.parquet", "a.h5", "packed.hdf5", "batches.pt")
LABELS = ("y.npy", "y.csv", "y.pt")
CHECKPOINTS = ("foreign.pt", "foreign.safetensors", "nested.ckpt")


def build(runner: Runner) -> dict[str, float]:
    """Make every seed, the runs and the grid by the commands; the seconds that each valid command line takes."""
    world = runner.world
    _arrays(world)
    _images(world / "images")
    _shard(world / SHARD, world / "images" / "train")
    (world / "recipe.toml").write_text('preset = "digits"\nepochs = 1\nlr = 0.1\nstrict = true\n')
    _made(runner, (*GRID, "--workers", "1"))
    seconds = {"bridge pretrain": _made(runner, ("bridge", "pretrain", *TRAINING, "--out", "run"))}
    for command in ("diagnose", "probe"):
        seconds[f"bridge {command}"] = _made(runner, ("bridge", command, *READING))
    _foreign(world)
    for command, (arguments, needs) in BASES.items():
        if (name := " ".join(command)) not in seconds:
            outcome = runner.run(Try("valid", (*command, *arguments), needs), bound=60.0)
            expected = 2 if command[-1] == "check" else 0
            assert outcome.code == expected, (command, outcome.stderr)
            seconds[name] = outcome.seconds
    return seconds


def _made(runner: Runner, arguments: tuple[str, ...]) -> float:
    found = runner.call(arguments, runner.world, seconds=120.0, idle=60.0)
    assert found["code"] == 0, found
    return float(found["seconds"])


def _arrays(world: Path) -> None:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((ROWS, DIM)).astype("f4")
    a, b = (clean + 0.1 * rng.standard_normal(clean.shape).astype("f4") for _ in range(2))
    np.save(world / "a.npy", a)
    np.save(world / "b.npy", b)
    np.savez(world / "a.npz", z=a, labels=np.arange(ROWS))
    torch.save({"z": torch.from_numpy(a), "labels": torch.arange(ROWS)}, world / "a.pt")
    torch.save(torch.from_numpy(a), world / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file({"z": torch.from_numpy(a)}, world / "a.safetensors")
    _tables(world, a)
    labels = np.arange(ROWS) % 2
    np.save(world / "y.npy", labels)
    torch.save(torch.from_numpy(labels), world / "y.pt")
    (world / "y.csv").write_text("label\n" + "".join(f"{one}\n" for one in ("cat", "dog") * (ROWS // 2)))
    (world / "shards").mkdir()
    for number, part in enumerate(np.split(a, 3)):
        np.save(world / "shards" / f"part-{number}.npy", part)


def _tables(world: Path, z: np.ndarray) -> None:
    """The embeddings as text, in columns, and in pieces."""
    np.savetxt(world / "a.csv", z, delimiter=",", header=",".join(f"emb_{k}" for k in range(DIM)), comments="")
    np.savetxt(world / "a.tsv", z, delimiter="\t")
    pyarrow.parquet.write_table(pyarrow.table({"z": list(z), "y": ["x"] * ROWS}), world / "a.parquet")
    columns = {f"emb_{k}": column for k, column in enumerate(z.T)}
    pyarrow.parquet.write_table(pyarrow.table(columns), world / "columns.parquet")
    with h5py.File(world / "a.h5", "w") as file:
        file["train/z"] = z
    with h5py.File(world / "packed.hdf5", "w") as file:
        file.create_dataset("z", data=z, chunks=(5, 3), compression="gzip")
    torch.save([(torch.from_numpy(part), torch.arange(len(part))) for part in (z[:20], z[20:])], world / "batches.pt")


def _images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for k, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, (20, 18, 3), dtype=np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def _shard(path: Path, folder: Path) -> None:
    """The training images as a shard of webdataset."""
    with tarfile.open(path, "w") as packed:
        for label, name in enumerate(("cat", "dog")):
            for number in range(5):
                packed.add(folder / name / f"{number}.png", f"{name}/{number}.png")
                entry = tarfile.TarInfo(f"{name}/{number}.cls")
                entry.size = 1
                packed.addfile(entry, io.BytesIO(b"%d" % label))


def _foreign(world: Path) -> None:
    """The run's network as others would save it."""
    ours: dict[str, Any] = torch.load(world / LAST, weights_only=True)["model"]
    state = {name: tensor.clone().contiguous() for name, tensor in ours.items()}
    torch.save(state, world / "foreign.pt")
    save_file(state, world / "foreign.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}}, world / "nested.ckpt")
