"""Encoders: timm backbones that give one feature map per scale.

The Mix Transformer of SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203) is timm's
`PyramidVisionTransformerV2` with other widths and ratios, so it is registered here, not rewritten:
`mit_b0` … `mit_b5` become ordinary timm model names.
"""

from __future__ import annotations

from typing import Any

import torch.nn as nn

from emu_perception.networks.lean_import import timm

PyramidVisionTransformerV2 = timm.models.pvt_v2.PyramidVisionTransformerV2

STAGES = 4
"""Decoders take four scales, at 1/4, 1/8, 1/16 and 1/32 of the image."""

default_cfgs = timm.models.generate_default_cfgs(
    {
        f"mit_b{size}": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "mean": timm.data.IMAGENET_DEFAULT_MEAN,
            "std": timm.data.IMAGENET_DEFAULT_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "fixed_input_size": False,
        }
        for size in range(6)
    }
)


def _mix_transformer(
    variant: str, depths: tuple[int, ...], pretrained: bool, **kwargs: Any
) -> PyramidVisionTransformerV2:
    widths = (32, 64, 160, 256) if variant == "mit_b0" else (64, 128, 320, 512)
    settings: dict[str, Any] = {
        "depths": depths,
        "embed_dims": widths,
        "num_heads": (1, 2, 5, 8),
        "sr_ratios": (8, 4, 2, 1),
        "mlp_ratios": (4, 4, 4, 4),
    }
    kwargs.setdefault("out_indices", tuple(range(STAGES)))
    out_indices = kwargs.pop("out_indices")
    return timm.models.build_model_with_cfg(
        PyramidVisionTransformerV2,
        variant,
        pretrained,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **{**settings, **kwargs},
    )


@timm.models.register_model
def mit_b0(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B0: 3.3 million parameters."""
    return _mix_transformer("mit_b0", (2, 2, 2, 2), pretrained, **kwargs)


@timm.models.register_model
def mit_b1(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B1: 13.2 million parameters."""
    return _mix_transformer("mit_b1", (2, 2, 2, 2), pretrained, **kwargs)


@timm.models.register_model
def mit_b2(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B2: 24.2 million parameters."""
    return _mix_transformer("mit_b2", (3, 4, 6, 3), pretrained, **kwargs)


@timm.models.register_model
def mit_b3(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B3: 44.1 million parameters."""
    return _mix_transformer("mit_b3", (3, 4, 18, 3), pretrained, **kwargs)


@timm.models.register_model
def mit_b4(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B4: 60.8 million parameters."""
    return _mix_transformer("mit_b4", (3, 8, 27, 3), pretrained, **kwargs)


@timm.models.register_model
def mit_b5(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """Mix Transformer B5: 81.4 million parameters."""
    return _mix_transformer("mit_b5", (3, 6, 40, 3), pretrained, **kwargs)


def build_encoder(
    name: str, *, dropout: float = 0.0, drop_path: float = 0.0, channels: int = 3
) -> nn.Module:
    """A timm backbone that maps `(B, C, H, W)` to its last four feature maps.

    Args:
        name: `mit_b0` … `mit_b5`, or any timm model that supports `features_only`.
        dropout: rate in the MLPs and attention projections (Mix Transformers only).
        drop_path: rate of stochastic depth, where the backbone has it.
        channels: C of the input.

    Returns:
        A module whose output is a list of four `(B, C, h, w)` tensors, from 1/4 to 1/32 of the
        image; `module.feature_info.channels()` gives their widths.

    Raises:
        ValueError: no such model, or one that does not give these four scales.
    """
    if not timm.models.is_model(name.split(".")[0]):
        nearest = timm.list_models(f"{name.split('_')[0]}*")[:5]
        hint = f"; near it: {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"timm has no model named '{name}'{hint}")
    settings: dict[str, Any] = {}
    if name.startswith("mit_"):
        settings["proj_drop_rate"] = dropout
    elif dropout:
        raise ValueError(
            f"dropout in the encoder is for Mix Transformers (mit_b0 … b5), not '{name}'"
        )
    if drop_path:
        settings["drop_path_rate"] = drop_path
    if channels != 3:
        settings["in_chans"] = channels
    encoder = build_features(name, **settings)
    reductions = feature_reductions(encoder)
    if len(reductions) > STAGES:
        indices = tuple(range(len(reductions)))[-STAGES:]
        encoder = build_features(name, out_indices=indices, **settings)
        reductions = feature_reductions(encoder)
    if reductions != [4, 8, 16, 32]:
        raise ValueError(
            f"'{name}' gives feature maps at 1/{reductions}; decoders need 1/4, 1/8, 1/16 and 1/32"
        )
    return encoder


def build_features(name: str, **settings: Any) -> nn.Module:
    """A timm model, not pretrained, whose output is the list of its feature maps.

    Args:
        name: of the model.
        settings: of timm, such as `output_stride`.

    Raises:
        ValueError: no such model, or one that gives no feature maps or does not take the settings.
    """
    try:
        encoder = timm.create_model(name, features_only=True, pretrained=False, **settings)
        _feature_info(encoder).reduction()
    except (RuntimeError, AttributeError, TypeError) as error:
        how = ", ".join(["features_only", *(f"{key} {value}" for key, value in settings.items())])
        raise ValueError(f"'{name}' cannot give feature maps ({how}): {error}") from error
    return encoder


def feature_reductions(encoder: nn.Module) -> list[int]:
    """How many times smaller than the image an encoder's feature maps are, finest first."""
    return list(_feature_info(encoder).reduction())


def feature_widths(encoder: nn.Module) -> list[int]:
    """Widths of an encoder's feature maps, finest first."""
    return list(_feature_info(encoder).channels())


def _feature_info(encoder: nn.Module) -> Any:
    return encoder.feature_info
