"""The projector zoo: sizes, and what the loss can and cannot see of each."""

from dataclasses import replace

import pytest
import torch
from helpers.bridge import small

from dyncollapse import ntxent
from dyncollapse.bridge import Fixed, RandomSubVector, build_encoder, build_projector
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.models.encoders import embedding_dim
from dyncollapse.bridge.recipe import PROJECTORS, SUBVECTORS


def representations(generator, n=12, d=16):
    return [torch.randn(n, d, generator=generator, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("head", PROJECTORS)
@pytest.mark.parametrize("dim", [16, 128, 2048])
def test_sizes_are_the_papers_in_proportion(head, dim):
    with torch.device("meta" if dim == 2048 else "cpu"):  # to draw an orthogonal matrix takes a second
        projector = build_projector(replace(small(projector=head), out_dim=None), dim)
        z = projector.eval()(torch.randn(4, dim))
    d0 = {16: 3, 128: 22, 2048: 360}[dim]
    expected = d0 if head in SUBVECTORS else min(128, dim) if head in ("mlp", "linear") else dim
    assert z.shape == (4, expected)


def test_sizes_that_are_given_are_taken():
    mlp = build_projector(small(out_dim=7, hidden_dim=9), 16)
    assert [tuple(part.shape) for name, part in mlp.named_parameters() if part.ndim == 2] == [(9, 16), (7, 9)]
    assert build_projector(small(method="directclr", d0=5), 16)(torch.ones(1, 16)).shape == (1, 5)


@pytest.mark.parametrize("head", SUBVECTORS)
def test_d0_above_the_representation_is_refused(head):
    with pytest.raises(ValueError, match="gives representations of 16 dimensions; give at most 16"):
        build_projector(small(projector=head, d0=17), 16)


def test_orthogonal_projector_is_none_to_the_loss(generator):
    # The paper measures 52.2 against 51.5: by this identity that is the spread of seeds, and not the projector's doing.
    r, r_pos = representations(generator)
    plain = torch.autograd.grad(ntxent(r, r_pos), (r, r_pos))
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(99, (), generator=generator)))
        fixed = Fixed(16, 16)
    turned = torch.autograd.grad(ntxent(fixed(r), fixed(r_pos)), (r, r_pos))
    assert torch.allclose(ntxent(r, r_pos), ntxent(fixed(r), fixed(r_pos)), atol=1e-5)
    for one, other in zip(plain, turned, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_trained_orthogonal_projector_would_never_move(generator):
    # The gradient G in Q of the loss, projected to the orthogonal group's tangent space: Q^T G - G^T Q = 0.
    r, r_pos = (x.detach().double() for x in representations(generator))
    q = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=generator)).Q.requires_grad_()
    (gradient,) = torch.autograd.grad(ntxent(r @ q.T, r_pos @ q.T), q)
    moment = q.detach().T @ gradient
    assert float((moment - moment.T).abs().max()) < 1e-13


def test_fixed_low_rank_projector_has_ones_and_zeros_for_singular_values():
    fixed = Fixed(16, 5)
    torch.testing.assert_close(
        torch.linalg.svdvals(fixed.matrix.double()), torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert not list(fixed.parameters())


def test_sub_vectors_give_the_rest_no_gradient(generator):
    r, r_pos = representations(generator)
    direct = build_projector(small(method="directclr", d0=5), 16)
    (gradient,) = torch.autograd.grad(ntxent(direct(r), direct(r_pos)), (r,))
    assert bool((gradient[:, :5] != 0).all())
    assert bool((gradient[:, 5:] == 0).all())


def test_the_last_block_passes_a_sub_vectors_gradient_on_to_all_channels(generator):
    # The paper's Fig. 10: beyond d0 the representation gets no gradient, yet all that the last block reads does.
    recipe = small(arch="resnet18", method="directclr", d0=5)
    encoder = build_encoder(recipe, 1)
    block = encoder.backbone.layer4[-1]
    torch.nn.init.ones_(block.bn2.weight)  # timm starts residual branches at 0
    seen = {}
    encoder.backbone.global_pool.register_forward_hook(lambda _m, _i, out: seen.setdefault("r", out).retain_grad())
    block.register_forward_pre_hook(lambda _m, inputs: seen.setdefault("h", inputs[0]).retain_grad())
    r, z = encoder(torch.randn(8, 1, 16, 16, generator=generator))
    ntxent(*z.chunk(2)).backward()
    assert bool((seen["r"].grad[:, 5:] == 0).all())
    assert bool((seen["h"].grad.abs().sum((0, 2, 3)) > 0).all())
    assert r.shape == seen["r"].shape


def test_random_sub_vector_is_redrawn_by_step_alone():
    one, other = RandomSubVector(50, 10, 3), RandomSubVector(50, 10, 3)
    seen = []
    for step in (0, 1, 2, 1):
        one.redraw(step)
        seen.append(one.coordinates.clone())
        assert len(set(one.coordinates.tolist())) == 10
    other.redraw(1)
    assert torch.equal(other.coordinates, seen[1])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[1], seen[2])
    assert "coordinates" in one.state_dict()


@pytest.mark.parametrize("head", PROJECTORS)
def test_encoder_starts_by_its_seed_alone(head):
    before = torch.get_rng_state()
    one, same, other = (build_encoder(small(projector=head, seed=s), 1) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    states = [encoder.state_dict() for encoder in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize(("arch", "outputs"), [("resnet10-half", 256), ("resnet10-half-96", 96)])
def test_small_resnets_have_the_outputs_of_their_name(arch, outputs):
    backbone = build_encoder(small(arch=arch, stem="cifar-stride-2"), 1).backbone
    assert representation_dim(backbone) == outputs
    assert backbone(torch.zeros(2, 1, 32, 32)).shape == (2, outputs)


def test_stems_keep_small_images_whole():
    encoder = build_encoder(small(), 1)
    assert (representation_dim(encoder.backbone), embedding_dim(encoder)) == (128, 64)
    assert encoder.projector.training
    seen = {}
    for stem in ("imagenet", "cifar", "cifar-padding-2", "cifar-stride-2"):
        backbone = build_encoder(small(stem=stem), 1).backbone
        seen[stem] = backbone.maxpool(backbone.conv1(torch.zeros(1, 1, 32, 32))).shape[-1]
    assert seen == {"imagenet": 8, "cifar": 32, "cifar-padding-2": 34, "cifar-stride-2": 16}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arch": "resnet5"}, "arch is 'resnet5', which timm does not have"),
        ({"arch": "resnet10-half-0"}, "arch is 'resnet10-half-0', which timm does not have"),
        ({"arch": "vit_tiny_patch16_224"}, "stem cifar replaces a ResNet's conv1"),
    ],
)
def test_backbones_that_cannot_be_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        build_encoder(small(**given), 3)
