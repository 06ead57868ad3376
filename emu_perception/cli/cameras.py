"""The camera of images, as the command line describes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from emu_perception.camera import Intrinsics

_UNREADABLE = (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class CameraChoice:
    """The camera from `--focal-length`, `--fov` or `--intrinsics`; all None means unknown.

    Raises:
        typer.BadParameter: more than one is given, or one is out of range.
    """

    focal_length: float | None = None
    """Pixels of the images."""
    fov: float | None = None
    """Horizontal field of view in degrees."""
    file: Path | None = None

    def __post_init__(self) -> None:
        if sum(v is not None for v in (self.focal_length, self.fov, self.file)) > 1:
            raise typer.BadParameter("give one of --focal-length, --fov and --intrinsics")
        if self.focal_length is not None and not 1 <= self.focal_length < math.inf:
            raise typer.BadParameter(
                f"--focal-length must be at least 1 pixel, got {self.focal_length:g}"
            )
        if self.fov is not None and not 1 <= self.fov <= 179:
            raise typer.BadParameter(f"--fov must be from 1 to 179 degrees, got {self.fov:g}")

    @property
    def is_given(self) -> bool:
        """Whether any of the options is given."""
        return any(v is not None for v in (self.focal_length, self.fov, self.file))

    def intrinsics(self, width: int, height: int) -> Intrinsics | None:
        """Intrinsics for an image size; None if the camera is unknown.

        Raises:
            ValueError: the file cannot be used, or is for images of other proportions.
        """
        if self.focal_length is not None:
            return Intrinsics.from_focal_ratio(width, height, self.focal_length / width)
        if self.fov is not None:
            return Intrinsics.from_field_of_view(width, height, self.fov)
        if self.file is None:
            return None
        found = read_intrinsics(self.file, width, height)
        if abs(found.width * height - found.height * width) > 0.01 * found.width * height:
            raise ValueError(
                f"{self.file} is for images of {found.width} x {found.height} pixels, and an image "
                f"has {width} x {height} (width x height): the proportions must be equal"
            )
        return found.resized(width, height)


def read_intrinsics(path: Path, width: int, height: int) -> Intrinsics:
    """Read the camera file of ROS's calibration, or one with the keys fx, fy, cx and cy.

    A projection matrix, which is that of the rectified image, takes precedence over the camera
    matrix.

    Args:
        path: YAML or JSON.
        width: of the images, if the file does not contain it.
        height: of the images, if the file does not contain it.

    Raises:
        ValueError: the file holds no intrinsics.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "fx" in values:
            numbers = [float(values[key]) for key in ("fx", "fy", "cx", "cy")]
            size = values.get("width", width), values.get("height", height)
        else:
            size = values["image_width"], values["image_height"]
            projection = values.get("projection_matrix", {}).get("data", [0.0])
            known = float(projection[0]) > 0
            matrix = projection if known else values["camera_matrix"]["data"]
            row = 4 if known else 3
            numbers = [float(matrix[i]) for i in (0, row + 1, 2, row + 2)]
        fx, fy, cx, cy = numbers
        return Intrinsics(fx, fy, cx, cy, int(size[0]), int(size[1]))
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} holds no intrinsics: expected the camera_info YAML of ROS's calibration, or "
            "fx, fy, cx and cy in pixels"
        ) from error
