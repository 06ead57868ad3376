"""The second, closer view: by hand, what becomes of its labels and cameras."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from emu_perception.networks.depth_unit import depth_unit
from emu_perception.training.multitask.partial import closer_depth
from emu_perception.training.multitask.views import Window, closer_view, draw_windows, look_into

WINDOWS = [Window(0, 2, 2, 2), Window(2, 0, 2, 2)]
"""The upper right and the lower left quarter: enlarged twice."""


def batch() -> Any:
    """Two images of 4 x 4, the second one's camera unknown; depths 1 … 16, class 255 at depth 4."""
    depth = torch.arange(1.0, 17.0).view(1, 4, 4).repeat(2, 1, 1)
    camera = torch.tensor([[8.0, 8.0, 1.5, 1.5], [float("nan")] * 4])
    labels = torch.where(depth == 4, 255, 3)
    return {
        "image": torch.full((2, 3, 4, 4), 200, dtype=torch.uint8),
        "intrinsics": camera,
        "has_intrinsics": torch.tensor([True, False]),
        "depth": depth,
        "depth_valid": depth != 9,
        "labels": labels,
        "labels_valid": labels != 255,
    }


def test_a_window_fills_the_view() -> None:
    labels = torch.arange(16).view(1, 1, 4, 4)
    view = look_into(labels, WINDOWS[:1], nearest=True)
    assert view[0, 0].tolist() == [[2, 2, 3, 3], [2, 2, 3, 3], [6, 6, 7, 7], [6, 6, 7, 7]]
    image = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)
    assert F.mse_loss(look_into(image, [Window(1, 1, 2, 2)]).float(), image.float()) == 0


@pytest.mark.parametrize("knows_camera", [True, False])
def test_labels_and_cameras_of_a_closer_view(knows_camera: bool) -> None:
    view = closer_view(batch(), WINDOWS, knows_camera=knows_camera)
    # Where the network knows the camera, it is the camera that changed; else the scene is nearer.
    by_camera = torch.tensor([[3.0, 3, 4, 4], [3, 3, 4, 4], [7, 7, 8, 8], [7, 7, 8, 8]])
    nearer = torch.tensor([[9.0, 9, 10, 10], [9, 9, 10, 10], [13, 13, 14, 14], [13, 13, 14, 14]])
    torch.testing.assert_close(view["depth"][0], by_camera / (1 if knows_camera else 2))
    torch.testing.assert_close(view["depth"][1], nearer / 2)
    # (1.5 + 0.5 - 2) * 2 - 0.5 and (1.5 + 0.5 - 0) * 2 - 0.5.
    assert view["intrinsics"][0].tolist() == [16, 16, -0.5, 3.5]
    assert view["depth_valid"][1].tolist() == [[False, False, True, True]] * 2 + [[True] * 4] * 2
    assert view["depth_valid"][0].all()
    assert view["labels_valid"][0].tolist() == [[True, True, False, False]] * 2 + [[True] * 4] * 2
    assert view["labels"][0, 0].tolist() == [3, 3, 255, 255]


def test_a_view_may_be_mirrored() -> None:
    given = batch()
    normals = torch.zeros(2, 3, 4, 4)
    normals[:, 0], normals[:, 2] = 0.6, -0.8
    given |= {"normals": normals, "normals_valid": torch.ones(2, 4, 4, dtype=torch.bool)}
    plain = closer_view(given, WINDOWS, knows_camera=True)
    mirrored = [window._replace(flipped=True) for window in WINDOWS]
    view = closer_view(given, mirrored, knows_camera=True)
    for field in ("depth", "depth_valid", "labels", "labels_valid", "image"):
        assert torch.equal(view[field], plain[field].flip(-1))
    assert view["normals"][0, :, 0, 0].tolist() == pytest.approx([-0.6, 0, -0.8])
    # The principal point at -0.5 of 4 columns comes to 3 + 0.5.
    assert view["intrinsics"][0].tolist() == [16, 16, 3.5, 3.5]
    assert not any(window.flipped for window in draw_windows(9, (4, 4)))
    assert all(window.flipped for window in draw_windows(9, (4, 4), flip_probability=1.0))


@pytest.mark.parametrize(("unit", "factor"), [("metres", 0.5), ("inverse", 2.0)])
def test_what_is_said_of_a_closer_view_is_nearer(unit: str, factor: float) -> None:
    network = SimpleNamespace(unit=depth_unit(unit))
    depth = torch.full((2, 1, 4, 4), 0.8)
    windows = [WINDOWS[0], Window(0, 0, 4, 4)]
    found = closer_depth(network, depth, windows)
    torch.testing.assert_close(found[0], factor * depth[0])
    torch.testing.assert_close(found[1], depth[1])
