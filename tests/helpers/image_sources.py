"""The same images as a folder, as a dataset of Hugging Face and as shards of webdataset, written by their libraries."""

import io
import tarfile
import warnings

import numpy as np
import torch
from PIL import Image

CLASSES = ("cat", "dog")


def pictures(per_class=6, size=(20, 24), seed=0):
    """PNGs of two classes as bytes, each with its label, in the order of an image folder."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(range(len(CLASSES)), per_class).tolist()
    return [(png(generator.integers(0, 256, (*size, 3), dtype=np.uint8)), label) for label in labels]


def png(pixels, mode=None):
    """An array as the bytes of a PNG."""
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(held, "PNG")
    return held.getvalue()


def as_folder(folder, made):
    for number, (content, label) in enumerate(made):
        path = folder / CLASSES[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def as_dataset(made, image="image", label="label"):
    import datasets

    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(CLASSES))})
    values = {image: [{"bytes": content, "path": None} for content, _ in made], label: [number for _, number in made]}
    return datasets.Dataset.from_dict(values, features=features)


def as_saved(folder, splits):
    import datasets

    datasets.DatasetDict({name: as_dataset(made) for name, made in splits.items()}).save_to_disk(folder)


def as_parquet(folder, splits):
    (folder / "data").mkdir(parents=True)
    for name, made in splits.items():
        as_dataset(made).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def as_shards(folder, splits, per_shard=5):
    """Shards by webdataset's own writer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    for name, made in splits.items():
        with webdataset.ShardWriter(str(folder / f"set-{name}-%04d.tar"), maxcount=per_shard, verbose=0) as writer:
            for number, (content, label) in enumerate(made):
                writer.write({"__key__": f"{name}/{number:04d}", "png": content, "cls": label})
    (folder / "classes.txt").write_text("\n".join(CLASSES))


def pack(path, members, form=tarfile.PAX_FORMAT):
    """A tar archive of members: name and content, or a TarInfo of no content."""
    with tarfile.open(path, "w", format=form) as packed:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                packed.addfile(member)
                continue
            name, content = member
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


def pixels_of(images):
    """The pixels of all images of a set."""
    return [images.read(index) for index in range(len(images))]


def same_images(one, other):
    """Whether two sets have the same pixels and labels in the same order."""
    pairs = zip(pixels_of(one), pixels_of(other), strict=True)
    return torch.equal(one.labels, other.labels) and all(torch.equal(a, b) for a, b in pairs)
