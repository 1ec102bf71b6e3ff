"""The effective rank after each stage of an encoder."""

from pathlib import Path

import pytest
import torch
from helpers.bridge import small
from torch import nn

from dyncollapse import effective_rank
from dyncollapse.bridge import build_encoder, embed, open_data
from dyncollapse.bridge.evaluation.depth import ranks_by_depth
from dyncollapse.bridge.evaluation.load import from_recipe


def test_last_ranks_are_those_of_representation_and_embedding(tmp_path):
    recipe = small(projector="linear")
    encoder = from_recipe(build_encoder(recipe, 1), recipe, 1, Path("untrained"))
    images = open_data("digits").test
    ranks = {rank.stage: rank for rank in ranks_by_depth(encoder, images)}
    assert list(ranks) == [*(f"backbone.layer{k}" for k in (1, 2, 3, 4)), "projector"]
    assert [rank.dim for rank in ranks.values()] == [16, 32, 64, 128, 64]
    embedded = embed(encoder, images, tmp_path)
    for stage, space in (("backbone.layer4", "representation"), ("projector", "embedding")):
        z = embedded[space][0].to(torch.float64)
        assert ranks[stage].effective_rank == pytest.approx(
            float(effective_rank(torch.linalg.eigvalsh(torch.cov(z.mT)))), rel=1e-5
        )


def test_rank_of_a_projector_is_that_of_its_matrix():
    recipe = small(projector="linear")
    encoder = build_encoder(recipe, 1)
    assert isinstance(encoder.projector, nn.Linear)
    with torch.no_grad():
        encoder.projector.weight[1:] = 0.0
    *_, last = ranks_by_depth(from_recipe(encoder, recipe, 1, Path("flat")), open_data("digits").test)
    assert last.effective_rank == pytest.approx(1.0)
    with torch.no_grad():
        encoder.projector.weight.zero_()
    *_, last = ranks_by_depth(from_recipe(encoder, recipe, 1, Path("dead")), open_data("digits").test)
    assert last.as_values() == {"stage": "projector", "dim": 64, "effective_rank": 0.0}


def test_features_with_channels_last_are_averaged_over_positions():
    recipe = small(arch="test_mambaout", stem="imagenet", image_size=64, projector="none")
    encoder = from_recipe(build_encoder(recipe, 1), recipe, 1, Path("untrained"))
    dims = {rank.stage: rank.dim for rank in ranks_by_depth(encoder, open_data("digits").test.take(range(8)))}
    assert dims["backbone.stages.3"] == 64  # channels; each image has 2 x 2 positions


@pytest.mark.parametrize(
    ("arch", "stages"),
    [
        ("test_vit", ["patch_embed", *(f"blocks.{k}" for k in range(6))]),
        ("test_convnext", ["stem", *(f"stages.{k}" for k in range(4)), "head"]),
    ],
)
def test_blocks_and_stages_count_one_by_one(arch, stages):
    recipe = small(arch=arch, stem="imagenet", image_size=160, projector="none")
    encoder = from_recipe(build_encoder(recipe, 1), recipe, 1, Path("untrained"))
    ranks = ranks_by_depth(encoder, open_data("digits").test.take(range(8)))
    assert [rank.stage.removeprefix("backbone.") for rank in ranks] == stages
