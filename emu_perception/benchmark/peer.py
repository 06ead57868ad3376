"""The peer: Hugging Face's SegFormer, which gives the class scores alone, at a quarter of the size.

It gets its image normalised and on the device, so that only the network's own time counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from emu_perception.benchmark.cases import LABELS
from emu_perception.inference.engines.pytorch import DTYPES
from emu_perception.labels import load_label_set

DEPTHS = {
    "mit_b0": (2, 2, 2, 2),
    "mit_b1": (2, 2, 2, 2),
    "mit_b2": (3, 4, 6, 3),
    "mit_b3": (3, 4, 18, 3),
    "mit_b4": (3, 8, 27, 3),
    "mit_b5": (3, 6, 40, 3),
}
KINDS = ("eager", "compiled")


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Kinds of the peer as a user names them; `none` is no peer.

    Raises:
        ValueError: an unknown one.
    """
    if list(kinds) == ["none"]:
        return []
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"the peer is {', '.join(KINDS)} or none, got '{kind}'")
    return list(kinds)


def peer_settings(backbone: str) -> dict[str, Any]:
    """Arguments of `SegformerConfig` for a Mix Transformer and its usual decoder."""
    return {
        "depths": DEPTHS[backbone],
        "hidden_sizes": (32, 64, 160, 256) if backbone == "mit_b0" else (64, 128, 320, 512),
        "decoder_hidden_size": 256 if backbone in ("mit_b0", "mit_b1") else 768,
        "num_labels": len(load_label_set(LABELS)),
    }


def make_peer(
    backbone: str, size: tuple[int, int], device: str, precision: str, kind: str = "eager"
) -> Callable[[], torch.Tensor]:
    """A function that runs the peer once and returns its class scores `(1, C, h/4, w/4)`.

    Args:
        backbone: `mit_b0` … `mit_b5`.
        size: height and width of the image.
        device: `cpu` or `cuda`.
        precision: of weights and image.
        kind: `eager`, or `compiled` with `torch.compile`.

    Raises:
        ModuleNotFoundError: without `transformers`.
    """
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    place: dict[str, Any] = {"device": device, "dtype": DTYPES[precision]}
    network = SegformerForSemanticSegmentation(SegformerConfig(**peer_settings(backbone)))
    network = network.eval().to(**place)
    run: Callable[[torch.Tensor], Any] = network
    if kind == "compiled":
        # A kernel per size, as the engines have.
        mode = "max-autotune" if device != "cpu" else "default"
        run = torch.compile(network, mode=mode, dynamic=False)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(**place)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        return run(image).logits

    return step
