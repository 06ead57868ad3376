"""Parameter counts, folding and cost of the networks."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from emu_perception.networks.encoder import build_encoder
from emu_perception.networks.segdepthformer import SegDepthFormer


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def awaken(network: SegDepthFormer) -> SegDepthFormer:
    """Give the batch-norms statistics that a fold must not lose."""
    generator = torch.Generator().manual_seed(1)
    for decoder in network.decoders.values():
        norm = decoder.norm
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator))
        norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.3)
        norm.weight.data.copy_(torch.randn(norm.num_features, generator=generator))
        norm.bias.data.copy_(torch.randn(norm.num_features, generator=generator))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "encoder", "with_19", "with_40"),
    [
        ("mit_b0", 3_319_392, 4_114_293, 4_119_690),
        ("mit_b1", 13_151_424, 14_208_469, 14_213_866),
        ("mit_b2", 24_196_288, 30_513_109, 30_529_258),
        ("mit_b3", 44_072_128, 50_388_949, 50_405_098),
        ("mit_b4", 60_842_688, 67_159_509, 67_175_658),
        ("mit_b5", 81_443_008, 87_759_829, 87_775_978),
    ],
)
def test_parameter_counts(name: str, encoder: int, with_19: int, with_40: int) -> None:
    with torch.device("meta"):
        small, large = SegDepthFormer(name, 19), SegDepthFormer(name, 40)
    assert parameters(small.encoder) == encoder
    assert parameters(small) == with_19
    assert parameters(large) == with_40


def as_published(network: SegDepthFormer, image: Tensor) -> list[Tensor]:
    """SegFormer's decoders word for word: project, upsample, concatenate, fuse, normalise,
    predict."""
    features = network.encoder(image)
    found = []
    for task in network.tasks:
        decoder = network.decoder(task)
        size = features[0].shape[-2:]
        projected = [
            functional.interpolate(project(feature), size=size, mode="bilinear")
            for project, feature in zip(decoder.projections, features, strict=True)
        ]
        fused = decoder.fuse(torch.cat(projected[::-1], dim=1))
        found.append(decoder.predict(decoder.dropout(torch.relu(decoder.norm(fused)))))
    return found


def test_training_is_that_of_the_published_decoders() -> None:
    torch.manual_seed(0)
    ours = awaken(SegDepthFormer("mit_b0", 5, width=16)).train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    theirs = copy.deepcopy(ours)
    image = torch.randn(2, 3, 64, 96)
    raw, reference = ours(image), as_published(theirs, image)
    sum((each**2).mean() for each in raw.values()).backward()
    sum((each**2).mean() for each in reference).backward()
    for a, b in zip(raw.values(), reference, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.detach().abs().max()))
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = gradients[name].grad
        assert (parameter.grad - expected).abs().max() <= 2e-4 * expected.abs().max() + 1e-7, name
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["mit_b0", "mit_b2", "mit_b5", "tf_efficientnet_lite0"])
def test_folded_network_equals_the_published_one(name: str) -> None:
    torch.manual_seed(0)
    network = awaken(SegDepthFormer(name, 19))
    image = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        reference, folded = as_published(network, image), network.fold()(image)
    for a, b in zip(reference, folded.values(), strict=True):
        assert a.shape == b.shape and a.shape[-2:] == (24, 40)
        assert (a - b).abs().max() <= 1e-4 * (a.max() - a.min())


def test_folding_removes_the_cost_of_the_decoders() -> None:
    with torch.device("meta"):
        network = SegDepthFormer("mit_b2", 40).eval()
        folded = network.fold()
        image = torch.empty(1, 3, 480, 640)

    def macs(run: Callable[[Tensor], object]) -> float:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            run(image)
        return counter.get_total_flops() / 2e9

    assert macs(partial(as_published, network)) == pytest.approx(119.4, abs=0.3)
    assert macs(network) <= 32.0  # also while it learns, but for the products of weights
    assert macs(folded) <= 30.0


def test_single_tasks() -> None:
    image = torch.randn(1, 3, 64, 64)
    segformer = SegDepthFormer("mit_b0", 5, tasks=["semantic"]).eval()
    depthformer = SegDepthFormer("mit_b0", tasks=["depth"]).eval()
    assert "depth" not in segformer(image) and segformer(image)["semantic"].shape == (1, 5, 16, 16)
    assert "semantic" not in depthformer(image) and depthformer(image)["depth"].shape == (
        1,
        2,
        16,
        16,
    )
    assert segformer.fold()(image)["semantic"].shape == (1, 5, 16, 16)


def test_depth_starts_at_the_given_mean() -> None:
    network = SegDepthFormer("mit_b0", tasks=["depth"]).eval()
    before = network(torch.zeros(1, 3, 64, 64))["depth"]
    network.initialise_depth_mean(12.5)
    after = network(torch.zeros(1, 3, 64, 64))["depth"]
    shift = after - before
    bias = network.decoders["depth"].predict.bias
    assert bias[0] == 12.5
    assert torch.allclose(shift[:, 1], torch.zeros(()), atol=1e-6)


@pytest.mark.parametrize("deviation", [1e-3, 0.5, 7.5, 40.0])
def test_depth_starts_at_the_given_deviation(deviation: float) -> None:
    network = SegDepthFormer("mit_b0", tasks=["depth"], width=8)
    network.initialise_depth_deviation(deviation)
    bias = network.decoders["depth"].predict.bias
    assert float(functional.softplus(bias.double()[1])) == pytest.approx(deviation**2, rel=1e-4)


def test_norms_have_the_published_epsilons() -> None:
    encoder = build_encoder("mit_b0")
    for name, module in encoder.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            inner = "patch_embed" in name or "downsample" in name or "attn.norm" in name
            assert module.eps == (1e-5 if inner else 1e-6), name


def test_dropout_reaches_mlps_attention_and_heads() -> None:
    network = SegDepthFormer("mit_b0", 3, dropout=0.2)
    rates = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    # Two blocks in each of four stages, an MLP and a projection each.
    assert rates.count(0.2) == 16
    assert all(d.dropout.p == 0.2 for d in network.decoders.values())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "pvt_v2_b0"])
def test_other_backbones_serve(name: str) -> None:
    network = SegDepthFormer(name, 4, width=32).eval()
    assert network(torch.randn(1, 3, 64, 96))["semantic"].shape == (1, 4, 16, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "mit_b9", "classes": 3}, "no model named 'mit_b9'"),
        ({"backbone": "vit_tiny_patch16_224", "classes": 3}, "1/4, 1/8, 1/16 and 1/32"),
        ({"backbone": "mit_b0", "tasks": ["normals"]}, "tasks must be"),
        ({"backbone": "mit_b0"}, "number of classes"),
    ],
)
def test_refusals_say_why(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegDepthFormer(**arguments)


def test_dropout_samples_decoders_alone_where_the_encoder_has_none() -> None:
    network = SegDepthFormer("resnet18", 3, width=16, dropout=0.2)
    assert {network.decoder(task).dropout.p for task in network.tasks} == {0.2}
    with pytest.raises(ValueError, match="Mix Transformers"):
        build_encoder("resnet18", dropout=0.2)
