"""Projectors of others: what stands between their layers, what is assumed, and what is left out for doubt."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from helpers.waiting import little_work
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dyncollapse.bridge.models.foreign_layers import ACTIVATIONS, INNER_NAMES, LINEAR_WORDS, NORM_WORDS
from dyncollapse.bridge.models.foreign_names import SECOND, WRAPPERS, renamed, unwrapped
from dyncollapse.bridge.models.foreign_projectors import CLASSIFIERS, WORDS, ProjectorHints, find_projector
from dyncollapse.bridge.models.projectors import UnitNorm

DIM = 12


def filled(*layers):
    """A row in evaluation mode whose tensors are all different."""
    row = nn.Sequential(*layers).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for tensor in row.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
    return row


def named(path, module):
    return {f"{path}.{name}": tensor for name, tensor in module.state_dict().items()}


def mlp(between=None, path="projection_head"):
    return named(path, filled(nn.Linear(DIM, 7), between or nn.ReLU(), nn.Linear(7, 5)))


def find(tensors, backbone="backbone.", at=None, **asked):
    return find_projector(tensors, backbone, DIM, ProjectorHints(at, **asked))


def assert_same(found, expected):
    r = torch.randn(20, DIM, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.module.eval()(r), expected(r), rtol=0, atol=1e-6)


# --- What stands between layers


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_one_that_is_named(name):
    expected = filled(nn.Linear(DIM, 7), ACTIVATIONS[name](), nn.Linear(7, 5))
    head, left_out = find(named("projection_head", expected), activation=name)
    assert_same(head, expected)
    assert head.layers == f"Linear 12-7, {name}, Linear 7-5"
    assert f"projection_head has {name} between its layers 0 and 2, as `projector_activation` says." in head.assumptions
    assert left_out == []


def test_options_that_change_nothing_are_refused():
    lone = named("projector", filled(nn.Linear(DIM, 5))[0])
    with pytest.raises(ValueError, match=r"no room for one in projector \(Linear 12-5\); leave it out"):
        find(lone, activation="gelu")
    with pytest.raises(ValueError, match=r"no room for one in projector"):
        find(lone, at="projector", activation="gelu")
    for asked, option in (({"activation": "gelu"}, "activation"), ({"last": "relu"}, "last")):
        with pytest.raises(ValueError, match=f"projector_{option} is given, but no projector was recognised"):
            find({"queue": torch.ones(3)}, **asked)


def test_assumed_activation_is_announced():
    head, _ = find(mlp(nn.Tanh()))
    assert head.layers == "Linear 12-7, relu, Linear 7-5"
    (said,) = [text for text in head.assumptions if "between" in text]
    assert "relu between its layers 0 and 2; a state dict does not hold activations" in said
    assert "`projector_activation`" in said
    assert any(text.startswith("Nothing follows the last layer of projection_head") for text in head.assumptions)
    with pytest.raises(ValueError, match="projector_activation is 'swish'; choose one of relu, gelu"):
        find(mlp(), activation="swish")


@pytest.mark.parametrize(
    ("path", "prefix", "beside", "activation", "source"),
    [
        ("projection_head.layers", "backbone.", (), "relu", "every head of lightly"),
        ("projection_head.layers", "backbone.", ("anchor_projection_head.layers.0.weight",), "gelu", "lightly's MSN"),
        ("head.mlp", "backbone.", (), "gelu", "DINO"),
        ("dino_head.mlp", "dino_backbone.", (), "gelu", "DINO"),
        ("neck", "backbone.", (), "relu", "MMSelfSup"),
        ("encoder_q.fc", "encoder_q.", (), "relu", "MoCo v2"),
        ("base_encoder.fc", "base_encoder.", (), "relu", "MoCo v3"),
        ("base_encoder.head", "base_encoder.", (), "relu", "MoCo v3"),
        ("encoder.fc", "encoder.", ("predictor.0.weight",), "relu", "SimSiam"),
        ("projector", "backbone.", ("classifier.weight",), "relu", "solo-learn except VIbCReg"),
        ("projector", "backbone.", (), "relu", "Barlow Twins"),
        ("projector", "encoder.", (), "relu", "Spijkervet"),
        ("projection_head", "", ("prototypes.weight",), "relu", "SwAV"),
        ("head", "encoder.", (), "relu", "SupContrast"),
        ("backbone.fc", "backbone.", (), "relu", "sthalles"),
        ("projection.model", "encoder.", (), "relu", "bolts"),
        ("g", "f.", (), "relu", "leftthomas"),
    ],
)
def test_known_layouts_are_built_as_their_sources_have_them(path, prefix, beside, activation, source):
    expected = filled(nn.Linear(DIM, 7), ACTIVATIONS[activation](), nn.Linear(7, 5))
    tensors = named(f"model.{path}", expected) | {f"model.{name}": torch.zeros(3) for name in beside}
    head, _ = find(tensors, f"model.{prefix}")
    assert_same(head, expected)
    assert any("as in " in text and source in text for text in head.assumptions)


def test_dinos_head_ends_before_its_last_layer():
    expected = filled(nn.Linear(DIM, 7), nn.GELU(), nn.Linear(7, 7), nn.GELU(), nn.Linear(7, 5))
    last = {"head.last_layer.weight_g": torch.ones(9, 1), "head.last_layer.weight_v": torch.ones(9, 5)}
    head, _ = find(named("head.mlp", expected) | last)
    assert_same(head, expected)
    assert any("what enters head.mlp's last layer" in text for text in head.assumptions)
    alone = filled(nn.Linear(DIM, 5))[0]  # of one layer, it is no classifier
    head, _ = find(named("head.mlp", alone) | last)
    assert_same(head, alone)
    head, _ = find(named("head.mlp", alone) | last, last="normalise")
    assert_same(head, nn.Sequential(alone, UnitNorm()))


def test_output_is_divided_by_its_length_where_asked():
    expected = filled(nn.Linear(DIM, 7), nn.ReLU(), nn.Linear(7, 5))
    head, _ = find(named("projector", expected), last="normalise")
    assert_same(head, lambda r: nn.functional.normalize(expected(r), dim=1))
    assert "normalise follows the last layer of projector, as `projector_last` says." in head.assumptions
    expected.append(nn.ReLU())
    assert_same(find(named("projector", expected), last="relu")[0], expected)
    with pytest.raises(ValueError, match="projector_last is 'l2'; choose one of normalise, relu"):
        find(mlp(), last="l2")


BLOCK = st.tuples(
    st.integers(1, 6), st.booleans(), st.sampled_from(["none", "batch", "plain batch", "layer"]), st.booleans()
)


@given(blocks=st.lists(BLOCK, min_size=2, max_size=5), name=st.sampled_from(["relu", "gelu", "tanh"]))
def test_any_row_with_its_activation_named_is_the_module(blocks, name):
    layers, width = [], DIM
    for out, bias, norm, dropout in blocks:
        if layers:
            layers += [ACTIVATIONS[name](), *([nn.Dropout()] if dropout else [])]
        layers.append(nn.Linear(width, out, bias=bias))
        width = out
        if norm != "none":
            layers.append(nn.LayerNorm(out) if norm == "layer" else nn.BatchNorm1d(out, affine=norm == "batch"))
    expected = filled(*layers)
    head, _ = find(named("net.projector", expected), "net.backbone.", activation=name)
    assert_same(head, expected)


def test_layers_without_room_between_them():
    class Apart(nn.Module):
        """A list of layers whose activation is a function, which leaves no number."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(filled(nn.Linear(DIM, 7), nn.Linear(7, 5)))

        def forward(self, r):
            return self.layers[1](torch.tanh(self.layers[0](r)))

    tensors = named("projector", Apart())
    head, _ = find(tensors)
    assert head.layers == "Linear 12-7, Linear 7-5"
    assert any("has nothing between its linear layers" in text for text in head.assumptions)
    assert_same(find(tensors, activation="tanh")[0], Apart())


def test_trainable_activations_and_dropout_in_front_are_seen():
    expected = filled(nn.Dropout(), nn.Linear(DIM, 7), nn.PReLU(), nn.Linear(7, 5))
    head, _ = find(named("projector", expected))
    assert_same(head, expected)
    assert any("projector begins with 1:" in text for text in head.assumptions)


def test_layers_with_words_are_a_row():
    row = filled(nn.Linear(DIM, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5))
    forms = [("fc1", "bn1", "fc2"), ("linear0", "norm0", "linear1"), ("l_1", "bn_1", "l_2"), ("0.fc", "0.bn", "1.fc")]
    # Rows within the row, as SimSiam's of PatrickHua: what ends an inner row may be an activation.
    forms += [("layer1.0", "layer1.1", "layer2.0"), ("0.0", "0.1", "1"), ("0.0", "0.1", "1.0"), ("0", "1.0", "2")]
    for words in forms:
        tensors = {}
        for word, layer in zip(words, (row[0], row[1], row[3]), strict=True):
            tensors |= named(f"projector.{word}", layer)
        assert_same(find(tensors)[0], row)


# --- Doubt


@pytest.mark.parametrize("word", CLASSIFIERS)
@pytest.mark.parametrize("inner", ["", ".0", ".1"])
def test_lone_linear_layer_is_left_out_until_it_is_named(word, inner):
    layer = filled(nn.Linear(DIM, 1000))[0]
    tensors = named(f"{word}{inner}", layer)
    head, (said,) = find(tensors)
    assert head is None
    assert f"{word}, one linear layer from 12 to 1000 dimensions, is left out" in said
    assert f"`projector_prefix` {word}" in said
    assert_same(find(tensors, at=word)[0], layer)


@pytest.mark.parametrize("word", ["projector", "projection_head", "neck.fc", "g"])
def test_lone_linear_projector_is_taken(word):
    layer = filled(nn.Linear(DIM, 5, bias=False))[0]
    assert_same(find(named(word, layer))[0], layer)


def test_second_candidate_is_named():
    head, (said,) = find(mlp(path="projector") | mlp(path="head"))
    assert head.path == "projector"
    assert "head (Linear 12-7, relu, Linear 7-5) is left out" in said
    head, (said,) = (
        find(named("projector", nn.Conv2d(3, 4, 1)) | mlp(path="classifier"))[0],
        find(mlp(path="classifier"))[1],
    )
    assert head is None
    assert "`projector_prefix` classifier" in said


def strange(**tensors):
    return {f"projector.{name.replace('__', '.')}": value for name, value in tensors.items()}


W, B = torch.ones(5, DIM), torch.ones(5)
STRANGE = {
    "numbers far apart": (strange(**{"0__weight": W, "9__weight": torch.ones(3, 5)}), "are 9 numbers apart"),
    "number without end": (strange(**{"0__weight": W, "999999999__weight": torch.ones(3, 5)}), "999999999"),
    "other width": (strange(**{"0__weight": torch.ones(5, 3)}), "takes 3 values where there are 12"),
    "widths that do not meet": (
        strange(**{"0__weight": W, "2__weight": torch.ones(3, 4)}),
        "takes 4 values where there are 5",
    ),
    "bias of another size": (strange(**{"0__weight": W, "0__bias": torch.ones(4)}), "do not fit together"),
    "norm of another size": (
        strange(**{"0__weight": W, "1__running_mean": torch.ones(4), "1__running_var": B}),
        "do not fit",
    ),
    "convolution": (strange(**{"0__weight": torch.ones(5, DIM, 1, 1), "1__weight": W}), "is neither linear nor a norm"),
    "bias alone": (strange(**{"0__bias": B}), "neither linear nor a norm"),
    "attention": (strange(in_proj_weight=W, in_proj_bias=B), "it has in_proj_weight"),
    "one number twice": (strange(fc0__weight=W, linear0__weight=W), "have one number"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_row_is_left_out_with_a_reason_and_refused_if_named(case):
    tensors, reason = STRANGE[case]
    with little_work(1):
        head, (said,) = find(tensors)
        assert head is None
        assert said.startswith("projector is not understood as a projector: ")
        assert reason in said
        with pytest.raises(ValueError, match="projector_prefix is projector, which is not understood") as error:
            find(tensors, at="projector")
        assert reason in str(error.value)


def test_projector_that_is_named_has_to_be_there_once():
    tensors = mlp(path="net.a.proj") | mlp(path="net.b.proj")
    with pytest.raises(ValueError, match=r"which fits net\.a\.proj, net\.b\.proj; give the whole of one"):
        find(tensors, at="proj")
    assert find(tensors, at="module.b.proj")[0].path == "net.b.proj"
    for wrong in ("predictor", "", "module", "."):
        with pytest.raises(ValueError, match="begins no name beside the backbone; names there are like net"):
            find(tensors, at=wrong)


# --- Left-over layers under other names

ROW = filled(nn.Linear(DIM, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5))


def words(path, *names):
    """The tensors of ROW under other names of its layers."""
    layers = zip(names, (ROW[0], ROW[1], ROW[3]), strict=True)
    return {name: tensor for word, layer in layers for name, tensor in named(f"{path}.{word}", layer).items()}


def as_announced(tensors, sentence, backbone):
    """The projector that the options in a sentence take."""
    pairs = dict(re.findall(r"`renames` (\S+)=(\S+)", sentence))
    named_by = re.search(r"`projector_prefix` (\S+)\.$", sentence)
    new = renamed(tensors, pairs) if pairs else tensors
    return find(new, backbone, at=named_by[1] if named_by else None)[0]


@pytest.mark.parametrize("names", [("0", "1", "3"), ("dense_in", "norm", "dense_out"), ("a.fc", "a.bn", "b.fc")])
@pytest.mark.parametrize("path", ["ssl_head", "model.ssl_head", "model.aux.to_z", "head2.layers", "projector", "x.fc1"])
@pytest.mark.parametrize("trunk", ["trunk.", "model.trunk.", "model.net.trunk."])
def test_left_over_layers_are_named_with_the_options_that_take_them(trunk, path, names):
    tensors = words(path, *names) | {"model.queue": torch.ones(3)}
    head, said = find(tensors, trunk)
    if head is None:
        (sentence,) = said
        head = as_announced(tensors, sentence, trunk)
    assert_same(head, ROW)


def test_the_page_lists_all_names():
    page = (Path(__file__).parents[3] / "docs/how-to/diagnose-a-checkpoint.md").read_text()
    for bold, names in (
        ("Outer names of projectors", WORDS),
        ("Inner names of projectors", LINEAR_WORDS + NORM_WORDS),
        ("Which copy", SECOND),
    ):
        (text,) = re.findall(rf"^\*\*{bold}\.\*\* .*?\n\n", page, re.DOTALL | re.MULTILINE)
        assert set(names) <= set(re.findall(r"`(\w+)`", text))


def test_inner_names_that_are_understood_are_listed():
    _, (said,) = find(words("ssl_head", "dense_in", "norm", "dense_out"))
    assert (
        "ssl_head is not understood as a projector: it has dense_in; inner names that are understood: numbers" in said
    )
    assert "`renames` ssl_head.dense_in.=ssl_head.0. `renames` ssl_head.norm.=ssl_head.1." in said
    with pytest.raises(
        ValueError, match=r"it has dense_in; inner names .* give renames ssl_head\.dense_in\.="
    ) as error:
        find(words("ssl_head", "dense_in", "norm", "dense_out"), at="ssl_head")
    assert "\n" not in str(error.value)
    for word in (*LINEAR_WORDS, *NORM_WORDS):
        assert f" {word}" in INNER_NAMES


@pytest.mark.parametrize("trunk", ["0.", "model.0."])
def test_numbered_layers_behind_the_backbone_are_renamed(trunk):
    tensors = words("", "1", "2", "4")
    tensors = {trunk.removesuffix("0.") + name.removeprefix("."): tensor for name, tensor in tensors.items()}
    head, (said,) = find(tensors, trunk)
    assert head is None
    assert_same(as_announced(tensors, said, trunk), ROW)


def test_beside_a_projector_other_layers_get_one_sentence():
    others = words("aux.a", "0", "1", "3") | named("probe", nn.Linear(DIM, 9)) | named("predictor", nn.Linear(5, 5))
    head, (said,) = find(mlp(path="projector") | others)
    assert head.path == "projector"
    assert "take 12 values are left out: aux, probe; `projector_prefix` names one of them" in said


@pytest.mark.parametrize("name", ["p{}.x", "p{}." + "a." * 60 + "x", "p." + "a." * 60 + "{}", "{}", "p.{}.dense_in"])
def test_many_left_over_layers_are_listed_in_bounded_length_and_time(name):
    tensors = {f"{name.format(k)}.weight": torch.ones(3, DIM) for k in range(20_000)}
    with little_work(5):
        _, said = find(tensors)
    assert sum(map(len, said)) < 2000 + 60 * max(map(len, tensors))


def test_options_for_long_names_are_not_repeated():
    _, (said,) = find(words("ssl_head" + ".a" * 400, "dense_in", "norm", "dense_out"))
    assert "`renames` OLD=NEW for each layer `projector_prefix` ssl_head" in said


def test_whole_path_names_one_of_two_projectors():
    tensors = mlp(path="ssl") | mlp(path="ema.ssl")
    assert find(tensors, "x.y.backbone.", at="ssl")[0].path == "ssl"


# --- Names


@given(
    words=st.lists(st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=2), min_size=4, max_size=4),
)
def test_words_of_wrappers_are_dropped_wherever_they_stand(words):
    parts = ["encoder", "layer1", "0", "weight"]
    name = ".".join(part for more, part in zip(words, parts, strict=True) for part in (*more, part))
    assert list(unwrapped([(name, torch.ones(1))])) == ["encoder.layer1.0.weight"]


def test_two_tensors_do_not_become_one():
    one, two = torch.ones(1), torch.zeros(1)
    assert unwrapped([("a.w", one), ("module.a.w", two)]) == {"a.w": one, "module.a.w": two}
    assert unwrapped([("module", one)]) == {"module": one}


def test_renames_ignore_wrappers():
    tensors = {"encoder.w": torch.ones(1)}
    assert list(renamed(tensors, {"module.encoder.": "x."})) == ["x.w"]
    assert list(renamed(tensors, {"module.": ""})) == ["encoder.w"]
    assert list(renamed(tensors, {"module.": "x."})) == ["x.encoder.w"]
    with pytest.raises(ValueError, match=r"renames module\.decoder\. begins no name"):
        renamed(tensors, {"module.decoder.": "x."})


@pytest.mark.parametrize(
    ("names", "renames", "expected"),
    [
        (["net.a.w", "net.b.w"], {"a": "c"}, ["net.c.w", "net.b.w"]),  # what stands before stays
        (["a.w", "net.a.w"], {"a.": "c."}, ["c.w", "net.a.w"]),  # whole names come first
        (["net.a.w", "net.a.a.w"], {"a.": "c."}, ["net.c.w", "net.c.a.w"]),  # the first place counts
        (["net.ba.w", "net.a.w"], {"a": "c"}, ["net.ba.w", "net.c.w"]),  # after a dot
        (["fc.w", "fc2.w"], {"fc.": "x"}, ["x.w", "fc2.w"]),
        (["fc.w", "fc2.w"], {"fc": "x"}, ["x.w", "x2.w"]),
        (["net.a.w"], {"a": ""}, ["net.w"]),
        (["net.a.w"], {"a": "b."}, ["net.b.w"]),
        (["a.w", "b.w"], {"a.": "b.", "b.": "a."}, ["b.w", "a.w"]),
        (["a.w", "b.w"], {"a.": "unused", "b.": "a."}, ["a.w"]),
        (["a.w", "b.w"], {"": "x"}, ["x.a.w", "x.b.w"]),
    ],
)
def test_beginnings_are_replaced(names, renames, expected):
    tensors = {name: torch.ones(1) for name in names}
    assert list(renamed(tensors, renames)) == expected


@pytest.mark.parametrize(
    ("renames", "words"),
    [
        ({"b": "a"}, "would give a.w and b.w one name, a.w; give another NEW, or leave one of them out by OLD=unused"),
        ({"a": "x", "b": "x."}, "would give a.w and b.w one name, x.w"),
        ({"a.": "a"}, "renames a. changes no name"),
        ({"": "unused"}, "leaves out all tensors; give a longer beginning"),
        ({"a": "x", "c": "y"}, "renames c begins no name in the file"),
        ({"a.": "x.", "a": "y"}, "renames a begins only names that an earlier one replaces"),
        ({"module.a": "x", "a": "y"}, "renames a is given twice"),
    ],
)
def test_renames_that_lose_tensors_or_do_nothing_are_refused(renames, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        renamed({"a.w": torch.ones(1), "b.w": torch.zeros(1)}, renames)


@given(
    names=st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), min_size=1, max_size=6),
    renames=st.dictionaries(st.sampled_from(["a", "b.", "a.b", "c"]), st.sampled_from(["a", "d.", "", "b.c"])),
)
def test_no_rename_loses_a_tensor(names, renames):
    tensors = {name: torch.ones(1) for name in sorted(names)}
    with contextlib.suppress(ValueError):
        assert len(renamed(tensors, renames)) == len(tensors)
