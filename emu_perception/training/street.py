"""Trains the first street model: rendered scenes teach depth and classes, CamVid the classes.

    python -m emu_perception.training.street --camvid ROOT --out models/street_lite0.safetensors

One network, an hour on two CPU cores. Every batch is half rendered, half real. CamVid has no
depth, so its images train the classes only; a block of its training images is kept for the
calibration and its validation images are never seen.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from emu_perception.labels import load_label_set
from emu_perception.model_file import Calibration, Camera, ModelSpec, save_model
from emu_perception.networks.decoder import resize
from emu_perception.networks.pretrained import load_imagenet_lite0
from emu_perception.networks.segdepthformer import SegDepthFormer
from emu_perception.prediction import UNLABELLED
from emu_perception.training.losses import cross_entropy, gaussian_nll, log_l1, scale_invariant_log
from emu_perception.training.scenes import render_scene
from emu_perception.uncertainty import activate_depth

FOCAL = 400.0
"""Canonical focal length, pixels."""
CROP = (256, 352)
RENDERED = (288, 384)
INPUT = (352, 480)
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
FARTHEST = 120.0
CALIBRATION_IMAGES = 40
console = Console()


@dataclass
class Images:
    """A set held in memory: what a sample lacks is unlabelled (255) or has depth 0."""

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    focal: np.ndarray
    """Pixels; 1 where the camera is unknown, which has no depth either."""


def read_camvid(folder: Path) -> Images:
    """Images and labels of one split, in name order."""
    files = sorted((folder / "images").iterdir())
    if not files:
        raise FileNotFoundError(f"no CamVid images in {folder / 'images'}")
    image = [cv2.cvtColor(_read(f, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for f in files]
    labels = [_read(folder / "labels" / f"{f.stem}.png", cv2.IMREAD_GRAYSCALE) for f in files]
    return Images(
        np.stack(image),
        np.stack(labels),
        np.zeros(np.shape(labels), np.float16),
        np.ones(len(files), np.float32),
    )


def _read(path: Path, mode: int) -> np.ndarray:
    picture = cv2.imread(str(path), mode)
    if picture is None:
        raise ValueError(f"{path} is missing or no image that OpenCV can read")
    return picture


def _render(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    torch.set_num_threads(1)
    frame = render_scene(seed, RENDERED, "street")
    return frame.image, frame.labels, frame.depth.astype(np.float16), frame.intrinsics.fx


def render_scenes(first_seed: int, count: int) -> Images:
    """Street scenes of consecutive seeds, rendered by one process per core."""
    with Progress(console=console) as progress, multiprocessing.Pool() as pool:
        results = pool.imap(_render, range(first_seed, first_seed + count), chunksize=4)
        frames = list(progress.track(results, total=count, description=f"rendering {count} scenes"))
    image, labels, depth, focal = zip(*frames, strict=True)
    return Images(np.stack(image), np.stack(labels), np.stack(depth), np.array(focal, np.float32))


def load_scenes(first_seed: int, count: int, folder: Path | None) -> Images:
    """`render_scenes`, kept in and taken from a folder if one is given."""
    if folder is None:
        return render_scenes(first_seed, count)
    path = folder / f"street_{first_seed}_{count}_{RENDERED[0]}x{RENDERED[1]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **vars(render_scenes(first_seed, count)))
        partial.replace(path)
    with np.load(path) as arrays:
        return Images(**arrays)


def augment(images: Images, index: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """One random scale, crop and flip: `(3, H, W)` image 0-1, labels, depth, focal length."""
    image, labels, depth = images.image[index], images.labels[index], images.depth[index]
    height, width = labels.shape
    # Scaling an image is a change of its focal length: depths stay, the focal length moves.
    scale = float(np.exp(rng.uniform(np.log(0.75), np.log(1.6))))
    scale = max(scale, CROP[0] / height, CROP[1] / width)
    size = (math.ceil(width * scale), math.ceil(height * scale))
    top = int(rng.integers(0, size[1] - CROP[0] + 1))
    left = int(rng.integers(0, size[0] - CROP[1] + 1))
    window = (slice(top, top + CROP[0]), slice(left, left + CROP[1]))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[window]
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)[window]
    far = cv2.resize(depth.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)[window]
    if rng.random() < 0.5:
        image, labels, far = image[:, ::-1], labels[:, ::-1], far[:, ::-1]
    picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    return (
        disturb(picture, rng),
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(far.copy()),
        torch.tensor(images.focal[index] * scale),
    )


def disturb(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Strong photometric randomisation: exposure, contrast, colour, blur, noise; `(3, H, W)`."""
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (3, 1, 1)).astype(np.float32))
    image = image * gain * float(rng.uniform(0.65, 1.4))
    mean = image.mean()
    image = mean + (image - mean) * float(rng.uniform(0.65, 1.4))
    grey = image.mean(0, keepdim=True)
    image = grey + (image - grey) * float(rng.uniform(0.3, 1.5))
    image = image.clamp(0, 1) ** float(np.exp(rng.uniform(-0.35, 0.35)))
    if rng.random() < 0.3:
        array = cv2.GaussianBlur(
            np.ascontiguousarray(image.permute(1, 2, 0)), (0, 0), float(rng.uniform(0.4, 1.4))
        )
        image = torch.from_numpy(array).permute(2, 0, 1)
    if rng.random() < 0.5:
        noise = rng.standard_normal(image.shape, np.float32) * float(rng.uniform(0, 0.04))
        image = image + torch.from_numpy(noise)
    return image.clamp(0, 1)


def normalize(image: Tensor) -> Tensor:
    """Images in [0, 1] to what the encoder expects."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (image - mean) / std


class Batches(torch.utils.data.Dataset):
    """Half real, half rendered; a batch depends on its number only."""

    def __init__(self, real: Images, rendered: Images, batch: int, count: int) -> None:
        self.sources, self.batch, self.count = (real, rendered), batch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((7, number))
        torch.set_num_threads(1)
        picks = [self.sources[i % 2] for i in range(self.batch)]
        samples = [augment(s, int(rng.integers(len(s.focal))), rng) for s in picks]
        return tuple(torch.stack(part) for part in zip(*samples, strict=True))


def losses(network: SegDepthFormer, batch: tuple[Tensor, ...], phase: float) -> dict[str, Tensor]:
    """The weighted terms; the Gaussian likelihood joins in the second half of the training."""
    image, labels, depth, focal = batch
    raw = network(normalize(image).contiguous(memory_format=torch.channels_last))
    # Every second pixel: its neighbours say nearly the same at half again the cost of a step.
    labels, depth = labels[:, 1::2, 1::2], depth[:, 1::2, 1::2]
    logits = resize(raw.logits, labels.shape[-2:])
    mean, variance = activate_depth(resize(raw.depth, labels.shape[-2:]))
    valid = (depth > 0.5) & (depth < FARTHEST)
    target = depth * (FOCAL / focal).view(-1, 1, 1)
    terms = {
        "classes": cross_entropy(logits, labels),
        "log": 0.5 * log_l1(mean, target, valid) + 0.5 * scale_invariant_log(mean, target, valid),
    }
    weight = 0.05 * min(1.0, max(0.0, (phase - 0.1) / 0.3))
    terms["likelihood"] = weight * gaussian_nll(mean, variance, target, valid, beta=0.5)
    return terms


@torch.inference_mode()
def raw_outputs(network: SegDepthFormer, images: Images, index: int) -> tuple[Tensor, ...]:
    """Full-size logits, mean and variance (canonical) of one image at the model's input size."""
    image = torch.from_numpy(images.image[index]).permute(2, 0, 1)[None].float() / 255
    size = images.labels.shape[1:]
    raw = network(normalize(F.interpolate(image, INPUT, mode="bilinear", antialias=True)))
    mean, variance = activate_depth(resize(raw.depth, size))
    return resize(raw.logits, size), mean[0], variance[0]


def calibrate(network: SegDepthFormer, real: Images, rendered: Images) -> Calibration:
    """Temperature on held-out CamVid images, variance scale on held-out scenes."""
    logits, labels = [], []
    for i in range(len(real.focal)):
        each, _, _ = raw_outputs(network, real, i)
        logits.append(each[0, :, ::4, ::4].flatten(1))
        labels.append(torch.from_numpy(real.labels[i, ::4, ::4].astype(np.int64)).flatten())
    z, y = torch.cat(logits, 1).T, torch.cat(labels)
    temperatures = torch.linspace(0.5, 3.0, 126)
    nll = [F.cross_entropy(z / t, y, ignore_index=UNLABELLED).item() for t in temperatures]
    ratios = []
    for i in range(len(rendered.focal)):
        _, mean, variance = raw_outputs(network, rendered, i)
        depth = torch.from_numpy(rendered.depth[i].astype(np.float32))
        focal = rendered.focal[i] * INPUT[1] / depth.shape[1]
        target = depth * FOCAL / focal
        valid = (depth > 0.5) & (depth < FARTHEST)
        ratios.append(((mean - target) ** 2 / variance)[valid].mean().item())
    return Calibration(
        temperature=float(temperatures[int(np.argmin(nll))]),
        depth_variance_scale=float(np.mean(ratios)),
        fitted_on=f"{len(real.focal)} CamVid training images and {len(rendered.focal)} scenes "
        "kept out of training",
    )


def train(
    camvid: Annotated[Path, typer.Option(help="Folder with train/images and train/labels.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    scenes: Annotated[int, typer.Option(help="How many scenes to render.")] = 2000,
    scene_folder: Annotated[
        Path | None, typer.Option(help="Keep rendered scenes here and take them from here.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1000,
    batch: Annotated[int, typer.Option(help="Images in a step.")] = 8,
    rate: Annotated[float, typer.Option(help="Encoder learning rate; decoders ten times.")] = 2e-4,
) -> None:
    """Train, calibrate and write the model file."""
    torch.manual_seed(0)
    real = read_camvid(camvid / "train")
    # Consecutive frames of one drive, so that neighbours of the held-out ones are few.
    held = np.arange(len(real.focal)) >= len(real.focal) - CALIBRATION_IMAGES
    parts = [Images(*(getattr(real, n)[m] for n in real.__dict__)) for m in (~held, held)]
    rendered = load_scenes(0, scenes, scene_folder)
    rendered_held = load_scenes(10_000_000, 40, scene_folder)

    network = SegDepthFormer("tf_efficientnet_lite0", 11, width=128, drop_path=0.05)
    load_imagenet_lite0(network.encoder)
    network.initialise_depth_mean(15.0)
    groups = [
        {"params": list(network.encoder.parameters()), "lr": rate},
        {"params": list(network.decoders.parameters()), "lr": 10 * rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 100) * (1 - s / steps) ** 0.9
    )
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    loader = torch.utils.data.DataLoader(
        Batches(parts[0], rendered, batch, steps), batch_size=None, num_workers=1, prefetch_factor=4
    )
    network.train()
    started = time.monotonic()
    seen: dict[str, float] = {}
    for step, data in enumerate(loader):
        terms = losses(network, data, step / steps)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        keep = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(
                average.state_dict().values(), network.state_dict().values(), strict=True
            ):
                a.copy_(keep * a + (1 - keep) * b if a.is_floating_point() else b)
        seen = {k: 0.98 * seen.get(k, v.item()) + 0.02 * v.item() for k, v in terms.items()}
        if step % 50 == 49:
            shown = "  ".join(f"{k} {v:.3f}" for k, v in seen.items())
            console.print(f"{step + 1}/{steps}  {time.monotonic() - started:.0f} s  {shown}")
    average.eval()
    spec = ModelSpec(
        architecture="segdepthformer",
        backbone="tf_efficientnet_lite0",
        tasks=("semantic", "depth"),
        arguments={"width": 128},
        label_set=load_label_set("camvid"),
        input_size=INPUT,
        normalization_mean=MEAN,
        normalization_std=STD,
        camera=Camera(canonical_focal_length=FOCAL, assumed_focal_ratio=0.9),
        depth_range=(0.5, FARTHEST),
        calibration=calibrate(average, parts[1], rendered_held),
        description="SegDepthFormer on EfficientNet-Lite0 for street cameras",
        data=f"{int((~held).sum())} CamVid training images (classes), {scenes} rendered street "
        "scenes (classes and depth); encoder from ImageNet",
        license="CC-BY-NC-4.0 (inherited from CamVid): non-commercial use",
        metrics={"training": {"steps": steps, "batch": batch, "scenes": scenes}},
    )
    save_model(out, average, spec)
    console.print(f"wrote {out}: {spec.calibration}")


if __name__ == "__main__":
    typer.run(train)
