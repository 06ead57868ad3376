"""Networks of XTasC-Net, MTPSL and MTAN: the papers' parameter counts, shapes, pairs of tasks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from emu_perception.networks.dilated_aspp import DilatedASPP
from emu_perception.networks.mtan import MTAN
from emu_perception.networks.mtpsl import MappingNetwork
from emu_perception.networks.multitask import MultiTaskNetwork
from emu_perception.networks.segnet import SegNet
from emu_perception.networks.task_transfer import upsample_aligned
from emu_perception.networks.xtasc import UNetDecoder, XTasCNet

NARROW = (4, 8, 8, 8, 8)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("resnet18", 21_445_184), ("resnet34", 31_553_344), ("resnet50", 40_412_224)],
)
def test_xtasc_has_the_published_parameters(backbone: str, count: int) -> None:
    network = XTasCNet(backbone, classes=7)
    assert parameters(network) == count
    assert parameters(network.transfers["semantic_to_depth"]) == 1_885_568
    assert parameters(network.transfers["depth_to_semantic"]) == 1_882_496


def test_a_unet_block_upsamples_after_its_convolutions() -> None:
    torch.manual_seed(0)
    decoder = UNetDecoder((3, 2), 1, width=4).eval()
    fine, coarse = torch.rand(1, 3, 4, 6), torch.rand(1, 2, 2, 3)

    def block(x: Tensor, layers: nn.Sequential) -> Tensor:
        for at in (0, 3, 6):
            convolution, norm = layers[at], layers[at + 1]
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
            x = (x - norm.running_mean[:, None, None]) / (1 + norm.eps) ** 0.5
            x = x.clamp_min(0)
        return x

    x = upsample_aligned(block(coarse, decoder.blocks[0]))
    x = upsample_aligned(block(torch.cat([x, fine], 1), decoder.blocks[1]))
    expected = torch.einsum("oc,bchw->bohw", decoder.predict.weight[:, :, 0, 0], x)
    prediction, features = decoder((fine, coarse))
    torch.testing.assert_close(features, x)
    torch.testing.assert_close(prediction, expected)


def test_xtasc_costs_what_convolutions_before_the_upsampling_cost() -> None:
    with torch.device("meta"):
        network = XTasCNet("resnet34", classes=7)
        image = torch.empty(1, 3, 128, 256)
    counted = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        counted += output[0, 0].numel() * module.weight.numel()

    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    network.eval().dense(image)
    # Encoder and both decoders in GMAC; upsampling first, they would take 48.1.
    assert counted / 1e9 == pytest.approx(13.8, abs=0.05)


def test_segnet_has_the_published_parameters() -> None:
    log_sigmas = 3
    assert parameters(SegNet(classes=13)) + log_sigmas == 25_055_188


def test_the_mapping_network_has_the_published_parameters() -> None:
    three = MappingNetwork({"semantic": 13, "depth": 1, "normals": 3})
    assert parameters(three) == 14_819_328
    assert sum(p.numel() for p in three.film_parameters()) == 50_688
    assert parameters(MappingNetwork({"semantic": 7, "depth": 1})) == 14_780_160


def test_mtan_is_as_much_larger_than_segnet_as_published() -> None:
    # 1.77 times the 24,981,069 parameters of one SegNet (MTAN, Table 2).
    assert parameters(MTAN(classes=13)) / 24_981_069 == pytest.approx(1.77, abs=0.005)


@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (XTasCNet("resnet18", 7, ("semantic", "depth"), 8, (4, 6, 8)), 1),
        (SegNet(7, ("semantic", "depth", "normals", "edges"), NARROW), 1),
        (MTAN(7, ("semantic", "depth", "normals"), NARROW), 1),
        (DilatedASPP("resnet18", 7, ("semantic", "normals"), 8), 8),
    ],
    ids=["xtasc", "segnet", "mtan", "dilated_aspp"],
)
def test_maps_of_all_tasks_at_the_expected_size(network: MultiTaskNetwork, scale: int) -> None:
    dense = network.eval().dense(torch.rand(1, 3, 64, 96))
    for task, raw in dense.scales[0].items():
        assert raw.shape == (1, network.channels[task], 64 // scale, 96 // scale)
    assert set(dense.scales[0]) == set(network.tasks)
    assert dense.shared is not None and dense.shared.dim() == 4
    assert "semantic" in network(torch.rand(1, 3, 64, 96))


def test_a_pair_of_tasks_chooses_the_modulation() -> None:
    torch.manual_seed(0)
    network = MappingNetwork({"semantic": 3, "depth": 1}, NARROW).eval()
    x = torch.rand(1, 1, 64, 64)
    pairs = [("semantic", "depth"), ("depth", "semantic")]
    first, second = (network(x, "depth", pair) for pair in pairs)
    assert first.shape == (1, 8, 2, 2)
    torch.testing.assert_close(first, second)  # gamma is 1 and beta 0 at the start
    with torch.no_grad():
        for parameter in network.film_parameters():
            parameter[network.pairs["depth", "semantic"]] += 0.5
    torch.testing.assert_close(network(x, "depth", pairs[0]), first)
    assert not torch.allclose(network(x, "depth", pairs[1]), second)


def test_a_mapping_needs_two_tasks() -> None:
    with pytest.raises(ValueError, match="two at least"):
        MappingNetwork({"depth": 1})


def test_single_task_xtasc_has_nothing_to_transfer() -> None:
    assert not XTasCNet("resnet18", tasks=("depth",), width=8).transfers


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        (XTasCNet, "metres"),
        (XTasCNet, "logarithm"),
        (XTasCNet, "inverse"),
        (SegNet, "metres"),
        (DilatedASPP, "metres"),
    ],
)
def test_a_fresh_network_predicts_the_initial_depth(kind: type, unit: str) -> None:
    torch.manual_seed(0)
    small = {"widths": NARROW} if kind is SegNet else {"backbone": "resnet10t", "width": 16}
    network = kind(classes=7, tasks=("semantic", "depth"), unit=unit, depth_variance=True, **small)
    before = parameters(network)
    network.initialise_depth_mean(15.0)
    network.initialise_depth_deviation(7.5)
    assert parameters(network) == before
    image = torch.randn(4, 3, 64, 64)
    expected = network.unit.encode(torch.tensor(15.0)).item()
    with torch.no_grad():
        direct = network.train().dense(image).scales[0]
    mean, variance = direct["depth"].mean((0, 2, 3)).tolist()
    assert mean == pytest.approx(expected, rel=0.3)
    assert math.sqrt(math.log1p(math.exp(variance))) == pytest.approx(7.5, rel=0.3)
    if kind is XTasCNet:
        with torch.no_grad():
            transferred = network.transfer(direct)["semantic", "depth"]
        assert transferred.mean().item() == pytest.approx(expected, rel=0.3)
