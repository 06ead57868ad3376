"""Scenes: deterministic, labelled, and geometrically true."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from emu_perception.camera import Intrinsics
from emu_perception.labels import load_label_set
from emu_perception.scenes import (
    SceneFrame,
    SceneStream,
    StreetDrive,
    render_batch,
    render_scene,
)
from emu_perception.scenes.ground import Layout, Side
from emu_perception.scenes.lighting import Light
from emu_perception.scenes.primitives import (
    Shape,
    place,
    primitives,
)
from emu_perception.scenes.rendering import render
from emu_perception.scenes.scene import (
    Camera,
    Scene,
    camera_pose,
)
from emu_perception.scenes.sensor import Sensor

SIZE = (72, 128)
GREY = (0.5, 0.5, 0.5)
LIGHT = Light((0.3, 0.2, 0.9), GREY, GREY, GREY, GREY, GREY, 0.0, 0.0, 0.0)
SENSOR = Sensor(0.4, 2.2, 0.0, (1.0, 1.0, 1.0), 1.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small images are slower on several threads, much slower where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def streets() -> list[SceneFrame]:
    return render_batch(range(20), SIZE)


@pytest.fixture(scope="module")
def rooms() -> list[SceneFrame]:
    return render_batch(range(12), SIZE, "room")


def test_frames_have_the_promised_types(streets: list[SceneFrame], rooms: list[SceneFrame]) -> None:
    for frame, classes in [(f, 11) for f in streets] + [(f, 13) for f in rooms]:
        assert frame.image.shape == (*SIZE, 3) and frame.image.dtype == np.uint8
        assert frame.labels.shape == SIZE and frame.labels.dtype == np.uint8
        assert frame.depth.dtype == np.float32 and np.isfinite(frame.depth).all()
        assert set(np.unique(frame.labels)) <= {*range(classes), 255}
        assert frame.edges.dtype == frame.odd.dtype == bool
        length = np.linalg.norm(frame.normals, axis=2)
        np.testing.assert_allclose(length[frame.depth > 0], 1.0, atol=1e-4)
        assert not length[frame.depth == 0].any()
        assert 5 < frame.image.mean() < 250 and frame.image.std() > 5
        assert 0 < frame.edges.mean() < 0.7


def test_every_class_appears(streets: list[SceneFrame], rooms: list[SceneFrame]) -> None:
    for frames, name in ((streets, "camvid"), (rooms, "nyuv2_13")):
        seen = np.bincount(np.concatenate([f.labels.ravel() for f in frames]), minlength=256)
        missing = [n for i, n in enumerate(load_label_set(name).names) if not seen[i]]
        assert not missing, f"{name}: {missing} never appeared"


def test_only_sky_and_the_ego_vehicle_have_no_depth(streets: list[SceneFrame]) -> None:
    sky = load_label_set("camvid").index("sky")
    for frame in streets:
        assert not frame.depth[frame.labels == sky].any()
        assert np.isin(frame.labels[frame.depth == 0], (sky, 255)).all()
        assert frame.depth.max() < 400


def test_cameras_stay_in_the_promised_range(streets: list[SceneFrame]) -> None:
    shares = [f.intrinsics.fx / SIZE[1] for f in streets]
    assert min(shares) >= 0.5 and max(shares) <= 1.2 and np.ptp(shares) > 0.3


def test_the_seed_decides() -> None:
    first, again, other = (render_scene(s, SIZE) for s in (5, 5, 6))
    for name in ("image", "labels", "depth", "normals", "edges"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.intrinsics == again.intrinsics
    assert (first.labels != other.labels).any()


def test_odd_objects_only_on_demand(streets: list[SceneFrame], rooms: list[SceneFrame]) -> None:
    assert not any(f.odd.any() for f in [*streets, *rooms])
    for kind in ("street", "room"):
        frames = [render_scene(s, SIZE, kind, odd_objects=True) for s in range(4)]
        assert any(f.odd.any() for f in frames)
        for frame in frames:
            assert (frame.labels[frame.odd] == 255).all() and (frame.depth[frame.odd] > 0).all()


def test_odd_objects_change_nothing_else() -> None:
    with_odd, without = (render_scene(3, SIZE, odd_objects=o) for o in (True, False))
    assert with_odd.odd.any()
    np.testing.assert_array_equal(with_odd.labels[~with_odd.odd], without.labels[~with_odd.odd])
    assert with_odd.intrinsics == without.intrinsics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kind": "garden"}, "street, room"), ({"size": (8, 100)}, "16 x 16")],
)
def test_wrong_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_scene(0, **arguments)


def test_stream_walks_through_the_seeds() -> None:
    stream = iter(SceneStream(SIZE, "room", first=2, step=3))
    next(stream)
    np.testing.assert_array_equal(next(stream).labels, render_scene(5, SIZE, "room").labels)


# --- geometry of single shapes -------------------------------------------------------------------


def _look_at(rows: np.ndarray, intrinsics: Intrinsics, pose: np.ndarray) -> SceneFrame:
    return render(Scene(rows, LIGHT), Camera(intrinsics, pose, SENSOR), 0)


def test_a_known_point_projects_where_the_intrinsics_say() -> None:
    intrinsics = Intrinsics(120.0, 118.0, 60.3, 40.7, 128, 80)
    pose = camera_pose((1.0, -2.0, 1.5), np.radians(20), np.radians(-4), np.radians(3))
    target = np.array([3.5, 6.0, 1.1])
    rows = place(
        primitives(Shape.ELLIPSOID, (0, 0, 0), (0.25, 0.25, 0.25), label=8), target, instance=1
    )
    frame = _look_at(rows, intrinsics, pose)
    x, y, z = pose[:3, :3].T @ (target - pose[:3, 3])
    v, u = (i.mean() for i in np.nonzero(frame.labels == 8))
    assert abs(u - (intrinsics.fx * x / z + intrinsics.cx)) < 0.3
    assert abs(v - (intrinsics.fy * y / z + intrinsics.cy)) < 0.3
    assert abs(frame.depth[round(v), round(u)] - (z - 0.25)) < 0.03


def test_camera_axes() -> None:
    right, down, forward = camera_pose((0, 0, 0), np.radians(90), 0.0, 0.0)[:3, :3].T
    np.testing.assert_allclose(forward, (1, 0, 0), atol=1e-9)
    np.testing.assert_allclose(down, (0, 0, -1), atol=1e-9)
    np.testing.assert_allclose(right, (0, -1, 0), atol=1e-9)
    assert np.linalg.det(camera_pose((0, 0, 0), 0.3, -0.2, 0.1)[:3, :3]) == pytest.approx(1.0)
    assert camera_pose((0, 0, 0), 0.0, 0.1, 0.0)[2, 2] > 0  # pitch up looks up


@pytest.mark.parametrize("shape", list(Shape))
def test_shapes_lie_on_their_surfaces(shape: Shape) -> None:
    """Every hit satisfies the shape's own equation, and the normal its gradient's direction."""
    axes = np.linalg.qr(np.random.default_rng(int(shape)).standard_normal((3, 3)))[0]
    half, taper = np.array([0.6, 0.9, 1.2]), (0.4, 0.4) if shape == Shape.CONE else (0.5, 0.2)
    if shape == Shape.CONE:
        half[1] = half[0]
    rows = primitives(shape, (0, 5, 0), half, axes=axes, taper=taper, label=1)
    intrinsics = Intrinsics(100, 100, 47.5, 31.5, 96, 64)
    frame = _look_at(rows, intrinsics, camera_pose((0, 0, 0.2), 0.0, 0.0, 0.0))
    on = frame.labels == 1
    assert on.sum() > 200
    rays = np.concatenate([intrinsics.rays(), np.ones((64, 96, 1))], axis=2)
    rotation = camera_pose((0, 0, 0), 0.0, 0.0, 0.0)[:3, :3]
    world = (rays * frame.depth[..., None])[on] @ rotation.T + (0, 0, 0.2)
    unit = ((world - (0, 5, 0)) @ axes.T) / half
    x, y, z = np.abs(unit.T)
    if shape == Shape.ELLIPSOID:
        value = (unit**2).sum(1)
    elif shape == Shape.BOX:
        value = np.maximum(np.maximum(x, y), z)
    else:
        wide, high = (1 - t * (unit[:, 2] + 1) / 2 for t in taper)
        across = np.hypot(x, y) / wide if shape == Shape.CONE else np.maximum(x / wide, y / high)
        value = np.maximum(across, z)
    np.testing.assert_allclose(value, 1.0, atol=2e-3)
    assert ((frame.normals[on] * rays[on]).sum(1) <= 1e-6).all()


def test_near_things_hide_far_ones_and_reach_behind_the_camera() -> None:
    near = place(primitives(Shape.BOX, (0, 0, 0), (0.5, 0.5, 0.5), label=2), (0, 4, 0), instance=1)
    far = place(primitives(Shape.BOX, (0, 0, 0), (3, 0.5, 3), label=3), (0, 9, 0), instance=2)
    wall = place(primitives(Shape.BOX, (0, 0, 0), (0.1, 30, 3), label=4), (-2, 0, 0), instance=3)
    intrinsics = Intrinsics.from_field_of_view(100, 60, 90)
    frame = _look_at(
        np.concatenate([far, near, wall]), intrinsics, camera_pose((0, 0, 0), 0.0, 0.0, 0.0)
    )
    assert frame.labels[30, 50] == 2 and frame.depth[30, 50] == pytest.approx(3.5, abs=1e-4)
    assert frame.labels[30, 65] == 3 and frame.labels[30, 0] == 4
    x = intrinsics.rays()[30, 0, 0]
    assert frame.depth[30, 0] == pytest.approx(-1.9 / x, rel=1e-4)


def test_normals_agree_with_depth_on_smooth_surfaces(streets: list[SceneFrame]) -> None:
    errors = []
    for frame in streets:
        rays = np.concatenate([frame.intrinsics.rays(), np.ones((*SIZE, 1), np.float32)], axis=2)
        points = rays * frame.depth[..., None]
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normal = np.cross(down, across)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-12
        labels, valid = frame.labels[1:-1, 1:-1], np.ones((SIZE[0] - 2, SIZE[1] - 2), bool)
        for dy in range(3):
            for dx in range(3):
                part = (slice(dy, SIZE[0] - 2 + dy), slice(dx, SIZE[1] - 2 + dx))
                valid &= (frame.labels[part] == labels) & ~frame.edges[part]
        flat = valid & np.isin(labels, (1, 3))  # buildings and road
        errors.append(1 - np.abs((normal * frame.normals[1:-1, 1:-1]).sum(2))[flat])
    error = np.concatenate(errors)
    assert len(error) > 10_000
    assert np.median(error) < 1e-3 and np.mean(error < 0.02) > 0.95


def test_curved_street_coordinates_invert() -> None:
    side = Side(0.0, 2.0, "paved")
    for curvature in (0.0, 0.004, -0.006):
        layout = Layout(4.0, 4.0, curvature, 0.0, (side, side), ())
        for s, t in ((0.0, 3.0), (60.0, -2.5), (-30.0, 8.0)):
            x, y, _ = layout.world(s, t)
            back = layout.street(
                torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
            )
            np.testing.assert_allclose([float(b[0]) for b in back], (s, t), atol=1e-6)


# --- the drive -----------------------------------------------------------------------------------


def test_drive_is_smooth_and_says_where_the_camera_is() -> None:
    drive = StreetDrive(seed=1, size=SIZE, frames=100, rate=10.0)
    assert len(drive) == len(drive.poses) == len(drive.stamps) == 100
    places = np.array([p[:3, 3] for p in drive.poses])
    speed = np.linalg.norm(np.diff(places, axis=0), axis=1) * 10
    assert (speed > 7).all() and (speed < 13).all() and np.abs(np.diff(speed)).max() < 0.3
    turn = [np.degrees(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))
            for a, b in zip(drive.poses[:-1], drive.poses[1:], strict=True)]  # fmt: skip
    assert max(turn) < 3
    with pytest.raises(ValueError, match="frames"):
        StreetDrive(frames=0)


def test_drive_frames_reproject_into_one_another() -> None:
    """Depth and pose carry static points of one frame onto the same surface in the next."""
    drive = StreetDrive(seed=2, size=(96, 160), frames=3, rate=10.0)
    frames = list(drive)
    assert frames[0].intrinsics == drive.intrinsics
    k = drive.intrinsics
    for i in (0, 1):
        a, b = frames[i], frames[i + 1]
        static = np.isin(a.labels, (1, 3, 4)) & ~a.edges & (a.depth < 60)
        points = (
            np.concatenate([k.rays(), np.ones((96, 160, 1))], axis=2)[static]
            * a.depth[static][:, None]
        )
        world = points @ drive.poses[i][:3, :3].T + drive.poses[i][:3, 3]
        x, y, z = ((world - drive.poses[i + 1][:3, 3]) @ drive.poses[i + 1][:3, :3]).T
        u, v = (
            np.round(f * p / z + c).astype(int) for f, p, c in ((k.fx, x, k.cx), (k.fy, y, k.cy))
        )
        inside = (z > 0.5) & (u >= 1) & (u < 159) & (v >= 1) & (v < 95)
        u, v, z = u[inside], v[inside], z[inside]
        same = (b.labels[v, u] == a.labels[static][inside]) & ~b.edges[v, u]
        assert same.mean() > 0.85
        # Half a pixel of rounding is a few per cent of depth on the road: compare along its slope.
        error = np.abs(b.depth[v, u] - z)[same] / z[same]
        assert np.median(error) < 0.01 and np.mean(error < 0.08) > 0.93
        shift = np.abs(b.image[v, u].astype(float) - a.image[static][inside])[same].mean()
        still = np.abs(b.image.astype(float) - a.image).mean()
        assert shift < 22 and shift < 1.2 * still + 5


@pytest.mark.gpu
def test_gpu_draws_the_same_scene() -> None:
    cpu, gpu = (render_scene(4, SIZE, device=d) for d in ("cpu", "cuda"))
    assert (cpu.labels == gpu.labels).mean() > 0.98
    assert np.abs(cpu.image.astype(float) - gpu.image).mean() < 3


def test_close_vehicles_are_near_and_leave_the_rest() -> None:
    for seed in range(2):
        close, plain = (render_scene(seed, SIZE, close_vehicles=c) for c in (True, False))
        car = load_label_set("camvid").index("car")
        added = (close.labels == car) & (close.depth != plain.depth)
        assert 3.0 < close.depth[added].min() < 20.0
        rest = close.labels != car
        same = close.depth[rest] == plain.depth[rest]
        assert same.mean() > 0.98
