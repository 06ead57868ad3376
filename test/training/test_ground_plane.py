"""The road's plane from depth that is known to lie on one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emu_perception.networks.rays import pixel_rays
from emu_perception.training.ground_plane import MIN_PIXELS, fit_ground_plane

HEIGHT, WIDTH = 48, 64


def street(camera: float, pitch: float, focal: float) -> tuple[Tensor, Tensor, Tensor]:
    """Depth of a flat road, where it is, and the rays, of a camera that looks down by `pitch`."""
    intrinsics = torch.tensor([[focal, focal, (WIDTH - 1) / 2, (HEIGHT - 1) / 2]])
    rays = pixel_rays(intrinsics, HEIGHT, WIDTH)
    down = rays[..., 1] * math.cos(pitch) + rays[..., 2] * math.sin(pitch)
    road = down > 0.08
    depth = torch.where(road, camera / down.clamp_min(1e-3), 50.0)
    return depth, road, rays


@settings(max_examples=40)
@given(st.floats(0.3, 4.0), st.floats(-0.1, 0.5), st.floats(30.0, 90.0))
def test_a_flat_road_is_its_own_plane(camera: float, pitch: float, focal: float) -> None:
    depth, road, rays = street(camera, pitch, focal)
    found = fit_ground_plane(depth, road, rays)
    if road.sum() < MIN_PIXELS:
        assert len(found.images) == len(found.residual) == len(found.inverse) == 0
        return
    assert found.images.tolist() == [0]
    assert found.residual.item() == pytest.approx(0, abs=1e-3)
    plane = torch.tensor([0.0, math.cos(pitch), math.sin(pitch)])
    assert camera * found.inverse[0].numpy() == pytest.approx(plane.numpy(), abs=0.02)


def test_depth_that_is_the_same_everywhere_becomes_a_road_below() -> None:
    """And not one overhead, which has the same residual and could have the same height."""
    _, road, rays = street(1.4, 0.0, 60.0)
    overhead = fit_ground_plane(1.4 / (1.2 - rays[..., 1]), road, rays)
    assert overhead.residual.item() == pytest.approx(0, abs=1e-3)
    assert overhead.inverse[0, 1] == pytest.approx(-1 / 1.4, rel=1e-2)
    log = torch.full(road.shape, math.log(15.0)).requires_grad_()
    optimizer = torch.optim.Adam([log], lr=0.05)
    level = torch.tensor([0.0, 1 / 1.4, 0.0])
    for _ in range(200):
        found = fit_ground_plane(log.exp(), road, rays)
        optimizer.zero_grad()
        (found.residual.sum() + (found.inverse - level).abs().sum()).backward()
        assert log.grad is not None and torch.isfinite(log.grad).all()
        optimizer.step()
    assert found.inverse[0].tolist() == pytest.approx(level.tolist(), abs=0.1)


def test_the_plane_needs_no_focal_length() -> None:
    depth, road, _ = street(1.4, 0.1, 60.0)
    wrong = pixel_rays(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), HEIGHT, WIDTH)
    assert fit_ground_plane(depth, road, wrong).residual.item() == pytest.approx(0, abs=1e-3)


def test_gradients_flatten_the_road_and_bring_it_to_its_height() -> None:
    torch.manual_seed(0)
    true, road, rays = street(1.4, 0.1, 60.0)
    log = (true * 1.8 * torch.exp(0.2 * torch.randn_like(true))).log().requires_grad_()
    optimizer = torch.optim.Adam([log], lr=0.02)
    first = None
    for _ in range(150):
        found = fit_ground_plane(log.exp(), road, rays)
        height = 1 / found.inverse.norm()
        first = first or (found.residual.item(), height.item())
        optimizer.zero_grad()
        (found.residual.sum() + (height - 1.4) ** 2).backward()
        assert log.grad is not None and torch.isfinite(log.grad).all()
        optimizer.step()
    assert first is not None and first[0] > 0.1 and first[1] > 2.2
    assert found.residual.item() < 0.03
    assert height.item() == pytest.approx(1.4, abs=0.1)


def test_images_without_road_are_left_out() -> None:
    depth, road, rays = street(1.4, 0.1, 60.0)
    depths, rays = torch.cat([depth, 2 * depth]), torch.cat([rays, rays])
    found = fit_ground_plane(depths, torch.cat([torch.zeros_like(road), road]), rays)
    assert found.images.tolist() == [1]
    assert 1 / found.inverse.norm().item() == pytest.approx(2.8, rel=1e-2)
    none = fit_ground_plane(depths, torch.zeros_like(torch.cat([road, road])), rays)
    assert none.residual.sum() == none.inverse.sum() == 0
