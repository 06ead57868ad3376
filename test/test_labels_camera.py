"""Label sets and cameras."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_perception.camera import Intrinsics
from emu_perception.inference.model_spec import Camera
from emu_perception.labels import LabelSet, load_label_set


@pytest.mark.parametrize(
    ("name", "classes"), [("camvid", 11), ("cityscapes", 19), ("nyuv2_13", 13), ("nyuv2_40", 40)]
)
def test_shipped_label_sets(name: str, classes: int) -> None:
    labels = load_label_set(name)
    assert len(labels) == classes
    assert len(set(labels.colors)) == classes
    assert LabelSet.from_dict(labels.to_dict()) == labels
    assert labels.palette.shape == (256, 3) and not labels.palette[classes:].any()


def test_sky_has_no_depth() -> None:
    assert load_label_set("camvid").without_depth_ids == (0,)
    assert load_label_set("cityscapes").without_depth == ("sky",)


def test_label_set_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown label set 'mars'.*camvid"):
        load_label_set("mars")
    with pytest.raises(KeyError, match="no class 'cat'; it has sky"):
        load_label_set("camvid").index("cat")
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nclasses:\n  - {name: a, color: [1, 2, 300]}\n")
    with pytest.raises(ValueError, match="'a' is not three integers"):
        load_label_set(str(path))
    path.write_text("name: own\n")
    load_label_set.cache_clear()
    with pytest.raises(ValueError, match="'classes'"):
        load_label_set(str(path))


@given(
    fx=st.floats(50, 2000),
    width=st.integers(2, 2000),
    height=st.integers(2, 2000),
    new_width=st.integers(1, 2000),
    new_height=st.integers(1, 2000),
)
def test_resizing_keeps_pixel_edges(
    fx: float, width: int, height: int, new_width: int, new_height: int
) -> None:
    camera = Intrinsics(fx, fx * 1.1, width * 0.4, height * 0.6, width, height)
    resized = camera.resized(new_width, new_height)

    def edges(c: Intrinsics) -> list[float]:
        return [
            (-0.5 - c.cx) / c.fx,
            (c.width - 0.5 - c.cx) / c.fx,
            (-0.5 - c.cy) / c.fy,
            (c.height - 0.5 - c.cy) / c.fy,
        ]

    assert edges(camera) == pytest.approx(edges(resized), rel=1e-6, abs=1e-6)


def test_crop_flip_and_rays() -> None:
    camera = Intrinsics(100, 120, 30, 20, 64, 48)
    rays = camera.rays()
    assert rays.shape == (48, 64, 2) and rays.dtype == np.float32
    assert rays[20, 30].tolist() == [0.0, 0.0] and rays[20, 40, 0] == pytest.approx(0.1)
    assert np.allclose(camera.cropped(10, 5, 20, 20).rays(), rays[5:25, 10:30], atol=1e-6)
    mirrored = camera.flipped().rays()
    assert np.allclose(mirrored[..., 0], -rays[:, ::-1, 0], atol=1e-6)


def test_impossible_cameras() -> None:
    with pytest.raises(ValueError, match="uncalibrated"):
        Intrinsics(0, 100, 1, 1, 4, 4)
    with pytest.raises(ValueError, match="0 x 4"):
        Intrinsics(10, 10, 1, 1, 0, 4)
    assert Intrinsics.from_field_of_view(640, 480, 90).fx == pytest.approx(320)


def test_a_camera_by_its_focal_ratio() -> None:
    camera = Intrinsics.from_focal_ratio(640, 480, 0.9)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((576, 576, 319.5, 239.5))
    assert (camera.width, camera.height) == (640, 480)


def test_an_unknown_camera_is_assumed_by_width_or_by_area() -> None:
    wide = Camera(canonical_focal_length=400, assumed_focal_ratio=0.9)
    assert wide.assume(640, 160).fx == pytest.approx(0.9 * 640)
    area = Camera(canonical_focal_length=400, assumed_focal_ratio=1.1, assumed_focal_of="area")
    assumed = area.assume(640, 160)
    assert assumed.fx == assumed.fy == pytest.approx(1.1 * 320)
    assert (assumed.cx, assumed.cy) == (319.5, 79.5)
