"""Synthetic checkpoints in the layouts that libraries leave, each with the backbone and the projector in it."""

from functools import cache

import torch
from torch import nn

from dyncollapse.bridge.models.backbones import build_backbone

ARCH = "resnet18"
# The backbone of the layouts, with the parts of ResNet-18 and a thirtieth of its size, and its representation.
NARROW, DIM = "resnet10-narrow", 128
CHILDREN = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "014567", strict=True))
FLAT = dict(zip(CHILDREN, "012345", strict=True))
UNPOOLED = dict(zip(CHILDREN, "013456", strict=True))


@cache
def backbone(seed=0, stem="imagenet", channels=3, arch=ARCH):
    """One for all tests: who changes a weight, changes a copy."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_backbone(arch, stem, channels)
        for parameter in module.parameters():  # zeros and ones would match each other
            nn.init.normal_(parameter, std=0.05)
    return module.eval()


def projector(*kinds, dim=DIM, seed=1):
    """Layers by letters: l(inear with bias), w (without), b(atch norm), n(orm without gain), r(elu), g(elu)."""
    layers, width = [], dim
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for kind in kinds:
            if kind in "lw":
                layers.append(nn.Linear(width, 32, bias=kind == "l"))
                width = 32
            else:
                norms = {"b": nn.BatchNorm1d(width), "n": nn.BatchNorm1d(width, affine=False)}
                layers.append({**norms, "r": nn.ReLU(), "g": nn.GELU()}[kind])
    return nn.Sequential(*layers).eval()


def under(prefix, module, names=None):
    """A module's state below a prefix, with parts renamed."""
    found = {}
    for name, value in module.state_dict().items():
        part, dot, rest = name.partition(".")
        found[prefix + (names or {}).get(part, part) + dot + rest] = value
    return found


def nested(path, tensors):
    for key in reversed(path.split("/")):
        tensors = {key: tensors}
    return tensors


def shortcut(tensors):
    """Names as lightly's ResNetGenerator and SupContrast have them."""
    return {name.replace(".downsample.", ".shortcut."): value for name, value in tensors.items()}


def own_names(module):
    """Names that say nothing but the kind of tensor."""
    names = {}
    return {
        f"block_{names.setdefault(name.rpartition('.')[0], len(names))}.{name.rpartition('.')[2]}": value
        for name, value in module.state_dict().items()
    }


MLP = projector(*"wbrwbrw")
TWO = projector(*"lrl")
GELU = projector(*"lgl")
LAST = {"head.last_layer.weight_g": torch.ones(9, 1), "head.last_layer.weight_v": torch.ones(9, 32)}
# Layout: the file's content with a narrow backbone, the projector in it, the stem.
LAYOUTS = {
    "directclr": (
        lambda b: nested("model", under("module.backbone.", b) | under("module.projector.", MLP)),
        MLP,
        "imagenet",
    ),
    "barlow-twins": (
        lambda b: {
            "epoch": 9,
            "model": under("module.backbone.", b)
            | under("module.projector.", MLP)
            | under("module.bn.", projector("n", dim=32)),
        },
        MLP,
        "imagenet",
    ),
    "vicreg": (
        lambda b: {"model": under("module.backbone.", b) | under("module.projector.", MLP), "epoch": 1},
        MLP,
        "imagenet",
    ),
    "bare-torchvision": (lambda b: under("", b), None, "imagenet"),
    "torchvision-with-classifier": (lambda b: under("", b) | under("fc.", nn.Linear(DIM, 32)), None, "imagenet"),
    "directclr-final": (
        lambda b: {"backbone": under("", b), "head": under("", nn.Linear(DIM, 1000))},
        None,
        "imagenet",
    ),
    "directclr-spectrum": (lambda b: {"backbone": under("", b), "projector": under("", MLP)}, MLP, "imagenet"),
    "lightly": (
        lambda b: nested("state_dict", under("backbone.", b) | under("projection_head.layers.", MLP)),
        MLP,
        "imagenet",
    ),
    "lightly-children": (
        lambda b: nested("state_dict", under("backbone.", b, CHILDREN) | under("projection_head.layers.", TWO)),
        TWO,
        "imagenet",
    ),
    "lightly-cifar-children": (lambda b: nested("state_dict", under("backbone.", b, FLAT)), None, "cifar"),
    "solo-learn": (
        lambda b: {
            "pytorch-lightning_version": "2.1",
            "state_dict": under("backbone.", b) | under("projector.", TWO) | under("classifier.", nn.Linear(DIM, 10)),
        },
        TWO,
        "cifar-padding-2",
    ),
    "solo-learn-old": (
        lambda b: nested("state_dict", under("encoder.", b) | under("classifier.", nn.Linear(DIM, 10))),
        None,
        "cifar-padding-2",
    ),
    "mmselfsup": (
        lambda b: {
            "meta": {"epoch": 3},
            "state_dict": under("backbone.", b)
            | {f"neck.{n}": v for n, v in under("", projector(*"wbrw"), {"0": "fc0", "1": "bn0", "3": "fc1"}).items()},
        },
        projector(*"wbrw"),
        "imagenet",
    ),
    "vissl": (
        lambda b: nested(
            "classy_state_dict/base_model/model",
            {
                "trunk": under("_feature_blocks.", b),
                "heads": under("0.clf.", projector("l")) | under("1.clf.", projector("l", dim=32, seed=2)),
            },
        ),
        nn.Sequential(*projector("l"), nn.ReLU(), *projector("l", dim=32, seed=2)),
        "imagenet",
    ),
    "moco": (
        lambda b: nested(
            "state_dict",
            under("module.encoder_q.", b)
            | under("module.encoder_q.fc.", TWO)
            | under("module.encoder_k.", backbone(7))
            | {"module.queue": torch.zeros(32, 8)},
        ),
        TWO,
        "imagenet",
    ),
    "moco-v3": (
        lambda b: nested(
            "state_dict",
            under("module.momentum_encoder.", backbone(7))
            | under("module.base_encoder.", b)
            | under("module.base_encoder.fc.", projector(*"wbrwn")),
        ),
        projector(*"wbrwn"),
        "imagenet",
    ),
    "simsiam": (
        lambda b: nested(
            "state_dict",
            under("module.encoder.", b)
            | under("module.encoder.fc.", projector(*"wbrln"))
            | under("module.predictor.", TWO),
        ),
        projector(*"wbrln"),
        "imagenet",
    ),
    "dino": (
        lambda b: {
            "student": under("module.backbone.", backbone(7)),
            "teacher": under("backbone.", b) | under("head.mlp.", GELU) | LAST,
        },
        GELU,
        "imagenet",
    ),
    "lightly-dino": (
        lambda b: nested(
            "state_dict",
            under("student_backbone.", backbone(7), CHILDREN)
            | under("student_head.layers.", projector(*"lgl", seed=8))
            | under("teacher_backbone.", b, CHILDREN)
            | under("teacher_head.layers.", GELU)
            | {f"teacher_{name}": value for name, value in LAST.items()},
        ),
        GELU,
        "imagenet",
    ),
    "lightly-msn": (
        lambda b: nested(
            "state_dict",
            under("anchor_backbone.", backbone(7))
            | under("anchor_projection_head.layers.", projector(*"wbgl", seed=8))
            | under("backbone.", b)
            | under("projection_head.layers.", projector(*"wbgl")),
        ),
        projector(*"wbgl"),
        "imagenet",
    ),
    "lightly-byol": (
        lambda b: nested(
            "state_dict",
            under("backbone_momentum.", backbone(7))
            | under("projection_head_momentum.layers.", projector(*"wbrl", seed=8))
            | under("backbone.", b)
            | under("projection_head.layers.", projector(*"wbrl"))
            | under("prediction_head.layers.", projector(*"wbrl", dim=32)),
        ),
        projector(*"wbrl"),
        "imagenet",
    ),
    "solo-learn-dino": (
        lambda b: nested(
            "state_dict",
            under("momentum_backbone.", backbone(7, "cifar-padding-2"))
            | under("backbone.", b)
            | under("head.mlp.", GELU)
            | LAST
            | under("momentum_head.mlp.", projector(*"lgl", seed=8))
            | under("classifier.", nn.Linear(DIM, 10)),
        ),
        GELU,
        "cifar-padding-2",
    ),
    "lightly-resnet-generator": (
        lambda b: nested("state_dict", shortcut(under("backbone.", b, FLAT)) | under("projection_head.layers.", TWO)),
        TWO,
        "cifar",
    ),
    "supcontrast": (
        lambda b: {"model": shortcut(under("encoder.module.", b)) | under("head.", TWO), "epoch": 1},
        TWO,
        "cifar",
    ),
    "leftthomas": (lambda b: under("f.", b, UNPOOLED) | under("g.", TWO), TWO, "cifar"),
    "lightning-bolts": (
        lambda b: nested("state_dict", under("encoder.", b) | under("projection.model.", projector(*"lbrw"))),
        projector(*"lbrw"),
        "imagenet",
    ),
    "swav": (
        lambda b: nested(
            "state_dict",
            under("module.", b)
            | under("module.projection_head.", projector(*"lbrl"))
            | {"module.prototypes.weight": torch.zeros(9, 32)},
        ),
        projector(*"lbrl"),
        "imagenet",
    ),
    "names-of-its-own": (lambda b: {"net": own_names(b)} | under("projector.", TWO), TWO, "imagenet"),
    "sthalles": (lambda b: nested("state_dict", under("backbone.", b) | under("backbone.fc.", TWO)), TWO, "imagenet"),
    "spijkervet": (lambda b: under("encoder.", b) | under("projector.", TWO), TWO, "imagenet"),
}
