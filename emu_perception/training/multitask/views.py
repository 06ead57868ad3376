"""A second, closer view of the images of a batch, together with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emu_perception.data import Batch
from emu_perception.tasks import TASKS

SCALES = (1.0, 1.2, 1.5)
"""By how much a view is enlarged; one is drawn per image (MTPSL, as its authors' code has it)."""


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool = False
    """Whether the view mirrors it left to right."""


def draw_windows(
    count: int,
    size: tuple[int, int],
    scales: Sequence[float] = SCALES,
    flip_probability: float = 0.0,
) -> list[Window]:
    """Windows of images of one size, drawn from torch's generator."""
    windows = []
    for _ in range(count):
        scale = scales[int(torch.randint(len(scales), ()))]
        height, width = int(size[0] / scale), int(size[1] / scale)
        top = int(torch.randint(size[0] - height + 1, ()))
        left = int(torch.randint(size[1] - width + 1, ()))
        flipped = flip_probability > 0 and bool(torch.rand(()) < flip_probability)
        windows.append(Window(top, left, height, width, flipped))
    return windows


def look_into(maps: Tensor, windows: Sequence[Window], *, nearest: bool = False) -> Tensor:
    """Each map's window at the size of the whole map: `(B, C, H, W)` of any type to the same.

    Nearest leaves values as they are; bilinear rounds where the type is an integer.
    """
    size = maps.shape[-2:]
    found = []
    for each, (top, left, height, width, flipped) in zip(maps, windows, strict=True):
        part = each[None, :, top : top + height, left : left + width]
        if part.shape[-2:] != size:
            kind = part.dtype
            part = part.double() if nearest and not kind.is_floating_point else part.float()
            if nearest:
                part = F.interpolate(part, size, mode="nearest-exact").to(kind)
            else:
                part = F.interpolate(part, size, mode="bilinear", align_corners=False)
                part = part.round().clamp(0, 255).to(kind) if kind == torch.uint8 else part
        found.append(part.flip(-1) if flipped else part)
    return torch.cat(found)


def look_into_directions(directions: Tensor, windows: Sequence[Window], *, nearest: bool) -> Tensor:
    """`look_into` for directions `(B, 3, H, W)`: in a mirrored view their x has the other sign."""
    seen = look_into(directions, windows, nearest=nearest)
    signs = [[-1.0 if window.flipped else 1.0, 1.0, 1.0] for window in windows]
    return seen * seen.new_tensor(signs)[..., None, None]


def zooms(windows: Sequence[Window], size: tuple[int, int]) -> Tensor:
    """How many times as large as their window's the pixels of a view are: `(B, 2)`, x and y."""
    height, width = size
    return torch.tensor([[width / window.width, height / window.height] for window in windows])


def closer_view(batch: Batch, windows: Sequence[Window], *, knows_camera: bool) -> Batch:
    """A batch of the windows, enlarged to the images' size.

    Args:
        batch: its images and labels of any tasks.
        windows: one per image.
        knows_camera: whether the network's depth is that of a canonical camera. Then an enlarged
            image has a longer focal length and the same depth, where its camera is known. To any
            other network a part of an image, enlarged, looks like a scene so much nearer: its depth
            is divided by the zoom, as MTPSL's authors do.
    """
    view: dict[str, Any] = {**batch, "image": look_into(batch["image"], windows)}
    for task in TASKS.values():
        field = task.field
        if field not in batch:
            continue
        values: Tensor = batch[field]  # type: ignore[literal-required]
        flat = values if values.dim() == 4 else values[:, None]
        look = look_into_directions if task.kind == "direction" else look_into
        view[field] = look(flat, windows, nearest=True).view_as(values)
        known: Tensor = batch[f"{field}_valid"]  # type: ignore[literal-required]
        view[f"{field}_valid"] = look_into(known[:, None].byte(), windows, nearest=True)[:, 0] > 0
    size = (batch["image"].shape[-2], batch["image"].shape[-1])
    device = batch["image"].device
    zoom = zooms(windows, size).to(device)
    corner = torch.tensor([[w.left, w.top] for w in windows], device=device)
    intrinsics = batch["intrinsics"]
    centre = (intrinsics[:, 2:] + 0.5 - corner) * zoom - 0.5
    flipped = torch.tensor([window.flipped for window in windows], device=device)
    centre[:, 0] = torch.where(flipped, size[1] - 1 - centre[:, 0], centre[:, 0])
    view["intrinsics"] = torch.cat([intrinsics[:, :2] * zoom, centre], dim=1)
    if "depth" in batch:
        nearer = zoom.prod(1).sqrt()
        if knows_camera:
            nearer = torch.where(batch["has_intrinsics"], 1.0, nearer)
        view["depth"] = view["depth"] / nearer[:, None, None]
    return view  # type: ignore[return-value]
