"""The node's parameters as one table of defaults, limits and descriptions; needs no ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from emu_perception.images import MAX_PIXELS
from emu_perception.messages.camera_info import RECTIFICATIONS
from emu_perception.messages.topics import Style
from emu_perception.ros.statistics import WINDOW
from emu_perception.visualization.colors import COLORMAPS

COLORMAP_NAMES = tuple(f"{name}{suffix}" for name in COLORMAPS for suffix in ("", "_r"))
HEIGHT_LIMIT = 1000.0
"""Metres; heights at the limit are not limited."""
AT_START = "at start"
UNCONFIGURED = "while unconfigured"
ANY_TIME = "any time"


def _parameter(
    default: Any,
    description: str,
    *,
    change: str = ANY_TIME,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default,
        metadata={
            "description": description,
            "change": change,
            "limits": limits,
            "choices": choices,
        },
    )


@dataclass(frozen=True)
class Settings:
    """Values of all parameters at one moment; the fields are the parameters."""

    autostart: bool = _parameter(True, "Configure and activate at the start.", change=AT_START)
    model: str = _parameter(
        "",
        "Model file, or the name of a shipped one; empty: the default model.",
        change=UNCONFIGURED,
    )
    device: str = _parameter(
        "auto",
        "Where the network runs: auto, cpu, cuda, cuda:N or, with onnxruntime, tensorrt. auto: "
        "the CPU for a .onnx file, a GPU if there is one for a .safetensors file.",
        change=UNCONFIGURED,
    )
    precision: str = _parameter(
        "auto",
        "Arithmetic of the network. auto: fp16 on GPUs; on CPUs fp32, or bf16 if CPU and file "
        "allow it.",
        change=UNCONFIGURED,
        choices=("auto", "fp32", "fp16", "bf16"),
    )
    engine: str = _parameter(
        "auto",
        "What runs the network: openvino or onnxruntime for .onnx files, openvino, pytorch, "
        "compiled or cuda_graph for .safetensors files. auto: OpenVINO on a CPU.",
        change=UNCONFIGURED,
    )
    cameras: tuple[str, ...] = _parameter(
        ("",),
        "Names of several cameras that one model serves, each the namespace of its topics; empty: "
        "one camera without a namespace of its own.",
        change=UNCONFIGURED,
    )
    image_transport: str = _parameter(
        "raw",
        "raw subscribes to the image topic, compressed to its /compressed sibling.",
        change=UNCONFIGURED,
        choices=("raw", "compressed"),
    )
    input_reliability: str = _parameter(
        "auto",
        "Reliability of the image subscription; auto: reliable if every publisher offers it.",
        change=UNCONFIGURED,
        choices=("auto", "reliable", "best_effort"),
    )
    focal_length: float = _parameter(
        0.0,
        "Focal length in pixels of the image as the camera sends it, used while no camera_info is "
        "published; 0: unknown, the model assumes one.",
        limits=(0.0, 1e6),
    )
    rectification: str = _parameter(
        "auto",
        "Whether the image is rectified (P holds) or raw (K and D hold); auto: rectified if D is "
        "all zero or the topic's last name contains 'rect'.",
        choices=RECTIFICATIONS,
    )
    output_scale: float = _parameter(
        1.0,
        "Size of all outputs over the size of the image.",
        limits=(0.01, 1.0),
    )
    max_image_pixels: int = _parameter(
        MAX_PIXELS, "Larger images are refused.", limits=(1, 2**31 - 1)
    )
    monitor_rate: float = _parameter(
        0.0,
        "Hz at which uncertainties are watched for the alarms even without subscribers; 0: never.",
        limits=(0.0, 1000.0),
    )
    min_confidence: float = _parameter(
        0.0,
        "Labels with a lower confidence become 255 (unlabelled); 0: off.",
        limits=(0.0, 1.0),
    )
    max_depth_std: float = _parameter(
        0.0,
        "Depth with a larger standard deviation in metres becomes NaN; 0: off.",
        limits=(0.0, 1e6),
    )
    min_height: float = _parameter(
        -HEIGHT_LIMIT,
        "Points below this height in metres get NaN coordinates.",
        limits=(-HEIGHT_LIMIT, HEIGHT_LIMIT),
    )
    max_height: float = _parameter(
        HEIGHT_LIMIT,
        "Points above this height in metres get NaN coordinates.",
        limits=(-HEIGHT_LIMIT, HEIGHT_LIMIT),
    )
    height_frame: str = _parameter(
        "",
        "Frame with z upwards in which heights are measured, by TF; empty: above the ground by "
        "camera_height and camera_pitch.",
        change=UNCONFIGURED,
    )
    camera_height: float = _parameter(
        1.0,
        "Metres of the camera above the ground; used without height_frame.",
        limits=(-HEIGHT_LIMIT, HEIGHT_LIMIT),
    )
    camera_pitch: float = _parameter(
        0.0,
        "Radians by which the camera looks down; used without height_frame.",
        limits=(-1.6, 1.6),
    )
    alarm_semantic_uncertainty: float = _parameter(
        0.0,
        "Diagnostics warn when the mean semantic uncertainty (0-1) is above; 0: off.",
        limits=(0.0, 1.0),
    )
    alarm_depth_uncertainty: float = _parameter(
        0.0,
        "Diagnostics warn when the mean standard deviation of depth in metres is above; 0: off.",
        limits=(0.0, 1e6),
    )
    alarm_domain_distance: float = _parameter(
        1.0,
        "Diagnostics warn when the images' mean distance from the model's training domain is "
        "above; 0: off. About 1 % of images of the domain itself are above 1.",
        limits=(0.0, 1e6),
    )
    alarm_staleness: float = _parameter(
        2.0,
        "Diagnostics report an error when no image came for this many seconds; 0: off.",
        limits=(0.0, 1e6),
    )
    overlay_alpha: float = _parameter(
        0.5, "Weight of the class colours in the overlay.", limits=(0.0, 1.0)
    )
    depth_colormap: str = _parameter(
        "turbo_r", "Colour map of depth/color.", choices=COLORMAP_NAMES
    )
    uncertainty_colormap: str = _parameter(
        "magma", "Colour map of both uncertainty_color topics.", choices=COLORMAP_NAMES
    )
    depth_color_max: float = _parameter(
        0.0,
        "Metres at the far end of the depth colours; 0: the end of the model's depth range.",
        limits=(0.0, 1e6),
    )
    depth_uncertainty_color_max: float = _parameter(
        10.0,
        "Standard deviation in metres at the far end of its colours.",
        limits=(1e-3, 1e6),
    )
    semantic_uncertainty_color_max: float = _parameter(
        1.0,
        "Semantic uncertainty at the far end of its colours.",
        limits=(1e-3, 1.0),
    )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """`cameras`; one empty name for the only camera."""
        return self.cameras or ("",)

    def style(self, farthest_depth: float) -> Style:
        """Colours, with the far end of the model's depth range."""
        return Style(
            overlay_alpha=self.overlay_alpha,
            depth_colormap=self.depth_colormap,
            uncertainty_colormap=self.uncertainty_colormap,
            depth_max=self.depth_color_max or farthest_depth,
            depth_uncertainty_max=self.depth_uncertainty_color_max,
            semantic_uncertainty_max=self.semantic_uncertainty_color_max,
        )

    def published_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the outputs for an image of this size."""
        return max(1, round(height * self.output_scale)), max(1, round(width * self.output_scale))

    @property
    def limits_height(self) -> bool:
        """Whether points are limited to a band of heights."""
        return self.min_height > -HEIGHT_LIMIT or self.max_height < HEIGHT_LIMIT

    @property
    def statistics_seconds(self) -> float:
        """Seconds that diagnostics look back; at least two periods of `monitor_rate`."""
        return max(WINDOW, 2 / self.monitor_rate) if self.monitor_rate > 0 else WINDOW

    @property
    def depth_std_limit(self) -> float:
        """`max_depth_std`, infinite where it is off."""
        return self.max_depth_std or math.inf


FIELDS = {f.name: f for f in fields(Settings)}
"""The parameters by name."""
