"""DenseMTL: published sizes, equality of attention with its definition, controls, switches."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from emu_perception import tasks as dense_tasks
from emu_perception.networks.attention import ChannelCrossTaskAttention, SpatialCrossTaskAttention
from emu_perception.networks.densemtl import DenseMTL
from emu_perception.networks.exchange import FUSIONS, ExchangeBlock
from emu_perception.networks.padnet import PADNet

TASKS = tuple(dense_tasks.TASKS)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_paper() -> None:
    assert count(SpatialCrossTaskAttention(128, 4)) == 50_048
    for tasks, expected in ((2, 773_120), (3, 2_318_592), (4, 4_636_672)):
        assert count(ExchangeBlock(TASKS[:tasks], 128, 4)) == expected
    with torch.device("meta"):
        assert count(DenseMTL("resnet101", 16)) == 87_399_458
        control = DenseMTL("resnet101", 16, exchange="isolated")
    assert count(control) == 87_399_458


def test_attention_equals_its_definition() -> None:
    torch.manual_seed(0)
    module = SpatialCrossTaskAttention(8, 2, alpha=True).eval()
    target, source = torch.randn(2, 8, 4, 6), torch.randn(2, 8, 4, 6)
    assert (module(target, source) == 0).all()  # alpha starts at 0
    nn.init.normal_(module.alpha)
    query = module.query(target[:, :, ::2, ::2]).flatten(2)
    pooled = F.max_pool2d(source, 2)
    key, value = module.key(pooled).flatten(2), module.value(pooled).flatten(2)
    weights = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(8), dim=-1)
    expected = (value @ weights.transpose(1, 2)).reshape(2, 8, 2, 3)
    expected = expected.repeat_interleave(2, 2).repeat_interleave(2, 3) * module.alpha
    assert torch.allclose(module(target, source), expected, atol=1e-5)


def test_channels_attend_to_their_like() -> None:
    torch.manual_seed(0)
    module = ChannelCrossTaskAttention(128)
    source = torch.rand(2, 128, 12, 16)
    order = torch.randperm(128)
    target = 3 * source[:, order] + 5  # the same channels in another order, scaled and shifted
    weights = module.weights(target, source)
    assert torch.equal(weights.argmax(-1), order.expand(2, 128))
    assert weights.amax(-1).min() > 0.9  # where all 128 alike would be 0.008
    assert (module(target, source) == 0).all()  # alpha starts at 0
    nn.init.constant_(module.alpha, 2.0)
    assert (module(target, source) / 2 - source[:, order]).abs().max() < 0.1
    source[:, 3] = 0  # dead
    half = module.half().weights(target.half(), source.half())
    assert torch.allclose(half.float(), module.float().weights(target, source), atol=0.02)


@pytest.mark.parametrize("variance", [True, False])
def test_the_deviation_of_depth_starts_where_it_is_told(variance: bool) -> None:
    network = PADNet("resnet10t", 5, tasks=("semantic", "depth"), depth_variance=variance)
    network.initialise_depth_mean(10.0)
    network.initialise_depth_deviation(5.0)
    for output in network.depth_outputs():
        assert network.unit.decode(output.bias[0]).item() == pytest.approx(10)
        assert F.softplus(output.bias[1:]).tolist() == pytest.approx([25.0] * variance)


@pytest.mark.parametrize("exchange", ["attention", "isolated", "none"])
def test_the_control_hears_nothing_of_other_tasks(exchange: str) -> None:
    torch.manual_seed(0)
    network = DenseMTL("resnet10t", 5, exchange=exchange, dilated=False).eval()
    network.initialise_depth_mean(10.0)
    image = torch.randn(1, 3, 32, 64)
    before = network(image)
    nn.init.normal_(network.decoders["depth"].merge["1"][1].weight)
    after = network(image)
    assert not torch.equal(before["depth"], after["depth"])
    assert torch.equal(before["semantic"], after["semantic"]) == (exchange != "attention")


@pytest.mark.parametrize(
    "switches",
    [
        {"fusion": "concatenate"},
        {"fusion": "product", "alpha": False},
        {"attention": "both", "scales": (3, 1)},
        {"attention": "none"},
        {"exchange": "distillation", "scales": (2,)},
        {"dilated": True, "supervised": (2, 1, 0), "depth_variance": True},
    ],
    ids=str,
)
def test_switches(switches: dict) -> None:
    network = DenseMTL("resnet10t", 5, TASKS, **{"dilated": False, **switches}).eval()
    network.initialise_depth_mean(10.0)
    dense = network.dense(torch.randn(1, 3, 32, 64))
    assert len(dense.scales) == len(switches.get("supervised", (1, 0)))
    assert dense.scales[0]["normals"].shape == (1, 3, 32, 64)
    raw = network.raw_outputs(dense.scales[0])
    assert raw["semantic"].shape == (1, 5, 32, 64) and raw["edges"].shape == (1, 2, 32, 64)
    assert raw["depth"].shape[1] == 1 + switches.get("depth_variance", False)


def test_what_is_heard_is_added_multiplied_or_concatenated() -> None:
    torch.manual_seed(0)
    features = {task: torch.randn(2, 8, 4, 8) for task in TASKS[:2]}
    own = features["semantic"]
    blocks = {fusion: ExchangeBlock(TASKS[:2], 8, 2, fusion).eval() for fusion in FUSIONS}
    add, product, concatenate = (blocks[name] for name in ("add", "product", "concatenate"))
    product.load_state_dict(add.state_dict())
    concatenate.directions.load_state_dict(add.directions.state_dict())
    heard = add.directions["semantic"]["depth"](own, features["depth"])
    fused = add.fuse["semantic"](heard)
    assert heard.std() > 0 and fused.std() > 0
    torch.testing.assert_close(add.enrich("semantic", features), own + fused)
    torch.testing.assert_close(product.enrich("semantic", features), own * fused)
    both = concatenate.fuse["semantic"](torch.cat([own, heard], 1))
    torch.testing.assert_close(concatenate.enrich("semantic", features), both)


def test_wrong_switches_are_named() -> None:
    with pytest.raises(ValueError, match="exchange must be"):
        DenseMTL("resnet10t", 5, exchange="gossip", dilated=False)
    with pytest.raises(ValueError, match="fusion must be"):
        DenseMTL("resnet10t", 5, fusion="sum", dilated=False)
    with pytest.raises(ValueError, match="width must leave"):
        DenseMTL("resnet10t", 5, width=0.01, dilated=False)
    with pytest.raises(ValueError, match="width must be a multiple of 4"):
        PADNet("resnet10t", 5, width=6)


def test_a_narrower_decoder_is_as_much_narrower_throughout() -> None:
    with torch.device("meta"):
        network = DenseMTL("resnet10t", 5, dilated=False, width=0.5)
    assert count(network.exchanges["1"]) == count(ExchangeBlock(TASKS[:2], 64, 4))
    assert network.decoders["depth"].outputs["0"].in_channels == 32


def test_padnet_distils_what_other_tasks_found() -> None:
    torch.manual_seed(0)
    network = PADNet("resnet10t", 5, TASKS[:3], width=8, depth_variance=True).eval()
    network.initialise_depth_mean(10.0)
    image = torch.randn(1, 3, 32, 64)
    dense = network.dense(image)
    final, first = dense.scales
    assert final["semantic"].shape == (1, 5, 32, 64) and first["depth"].shape == (1, 2, 8, 16)
    nn.init.normal_(network.initial["normals"][0].conv1.weight)
    after, other = network.dense(image).scales
    assert torch.equal(first["depth"], other["depth"])  # its own features are as they were
    assert not torch.equal(final["depth"], after["depth"])
    # Gates and features, 3 x 3, of each of the other two tasks for each of three.
    assert count(network.distillation) == 3 * 2 * 2 * 9 * 8 * 8
    assert PADNet("resnet10t", 5, ["semantic"], width=8).distillation is None


def test_attention_on_a_large_image_takes_little_memory() -> None:
    # 480 x 640 at scale 1: without downscaling, 76800^2 correlations per direction.
    program = (
        "import torch; torch.set_num_threads(1)\n"
        "import torch.nn.functional as F; fused, seen = F.scaled_dot_product_attention, []\n"
        "def attend(*parts): seen.append([tuple(p.shape) for p in parts]); return fused(*parts)\n"
        "F.scaled_dot_product_attention = attend\n"
        "from emu_perception.networks.exchange import ExchangeBlock\n"
        "block = ExchangeBlock(('semantic', 'depth'), 128, 4).eval()\n"
        "maps = {t: torch.randn(1, 128, 240, 320) for t in block.directions}\n"
        "with torch.inference_mode():\n"
        "    assert block(maps)['depth'].shape == (1, 128, 240, 320)\n"
        "assert seen == [[(1, 1, 60 * 80, 128)] * 3] * 2, seen\n"
        # Not getrusage: a child's figure there begins at its parent's.
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) * 1024 < 2e9
