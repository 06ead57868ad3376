"""Networks that are only asked."""

import pytest
import torch

from emu_perception.inference.engines import converted, frozen
from emu_perception.inference.engines.frozen import FrozenNetwork
from emu_perception.networks.ensembles import DeepEnsemble, MonteCarloDropout
from emu_perception.networks.segdepthformer import SegDepthFormer

BACKBONE = "tf_efficientnet_lite0"


def member(seed: int) -> SegDepthFormer:
    torch.manual_seed(seed)
    network = SegDepthFormer(BACKBONE, classes=5, width=16, rays=True)
    network.initialise_depth_mean(10.0)
    network(torch.randn(4, 5, 64, 96))  # norms get statistics
    return network


@pytest.mark.parametrize("small", [False, True])
def test_says_what_the_network_says(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled or not, of several members and tasks; an answer stays when the next is given."""
    compiled: list[tuple[int, ...]] = []
    original = converted.compile_forward

    def compile_forward(network: torch.nn.Module, shape: tuple[int, ...]) -> frozen.Forward:
        compiled.append(shape)
        return original(network, shape)

    monkeypatch.setattr(converted, "compile_forward", compile_forward)
    network = DeepEnsemble([member(0), member(1)]).eval()
    asked = FrozenNetwork(network)
    shape = (1, 5, 32, 64) if small else (2, 5, 128, 128)
    images = [torch.randn(shape) for _ in range(2)]
    with torch.no_grad():
        expected = [network(image) for image in images]
    found = [asked(image) for image in images]
    for answer, truth in zip(found, expected, strict=True):
        assert answer.keys() == truth.keys() == {"semantic", "depth"}
        for task, raw in truth.items():
            assert not answer[task].requires_grad
            torch.testing.assert_close(answer[task], raw, rtol=1e-3, atol=1e-3)
    assert compiled == ([] if small else [shape, shape])  # a member each


def test_sampled_dropout_is_sampled() -> None:
    torch.manual_seed(0)
    asked = FrozenNetwork(MonteCarloDropout("mit_b0", classes=4, samples=3, width=16, dropout=0.5))
    logits = asked(torch.randn(1, 3, 192, 192))["semantic"]
    assert logits is not None and logits.shape[0] == 3
    assert not torch.equal(logits[0], logits[1])


def test_without_openvino_the_network_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen.importlib.util, "find_spec", lambda name: None)
    network = member(0)
    asked = FrozenNetwork(network)
    image = torch.randn(2, 5, 128, 128)
    with torch.no_grad():
        expected = network.fold()(image)["depth"]
    assert torch.equal(asked(image)["depth"], expected)
