"""The node's parameters: one table that declares, checks and documents them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from emu_perception.images import MAX_PIXELS
from emu_perception.messages.camera_info import RECTIFICATIONS
from emu_perception.messages.topics import Style
from emu_perception.ros.statistics import WINDOW
from emu_perception.visualization.colors import COLORMAPS

COLORMAP_NAMES = tuple(f"{name}{suffix}" for name in COLORMAPS for suffix in ("", "_r"))
MAX_IMAGE_PIXELS = MAX_PIXELS
"""4096 x 4096: more is taken for a broken message."""
HEIGHT_LIMIT = 1000.0
"""Metres; heights at the limit are not limited."""
AT_START = "at start"
UNCONFIGURED = "while unconfigured"
ANY_TIME = "any time"


class ParameterError(ValueError):
    """A parameter's value cannot be used; the message names it and what is expected."""


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
        MAX_IMAGE_PIXELS, "Larger images are refused.", limits=(1, 2**31 - 1)
    )
    monitor_rate: float = _parameter(
        0.0,
        "Hz at which uncertainties are watched for the alarms even if nobody subscribes to them; "
        "0: never.",
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


_TYPE_NAMES: dict[type, tuple[str, str]] = {
    bool: ("true or false", ""),
    int: ("an integer", ""),
    float: ("a number", ""),
    str: ("a string", ", if need be in quotes"),
    tuple: ("a list of strings", ", as in [front, left]"),
}
_FIELDS = {f.name: f for f in fields(Settings)}


def declare_parameters(node: Node) -> Settings:
    """Declare every parameter and read what the user gave.

    Raises:
        ParameterError: a given value has the wrong type or is out of range.
    """
    for name, spec in _FIELDS.items():
        try:
            _declare(node, name, spec.default)
        except InvalidParameterTypeException as error:
            kind, hint = _TYPE_NAMES[type(spec.default)]
            raise ParameterError(f"parameter '{name}' must be {kind}{hint}: {error}") from error
        except InvalidParameterValueException as error:
            low, high = spec.metadata["limits"]
            raise ParameterError(
                f"parameter '{name}' must be from {low:g} to {high:g}: {error}"
            ) from error
    settings = read_settings(node)
    problem = find_problem(node.get_parameters(list(_FIELDS)), configured=False)
    if problem:
        raise ParameterError(problem)
    return settings


def _declare(node: Node, name: str, default: Any) -> None:
    """Declare a parameter; an integer is accepted where a float is expected."""
    try:
        value = list(default) if isinstance(default, tuple) else default
        node.declare_parameter(name, value, _descriptor(name))
    except InvalidParameterTypeException:
        if not isinstance(default, float):
            raise
        given: Parameter[Any] = node.declare_parameter(
            name, default, ParameterDescriptor(dynamic_typing=True)
        )
        node.undeclare_parameter(name)
        if type(given.value) is not int:
            raise
        node.declare_parameter(name, float(given.value), _descriptor(name), ignore_override=True)


def with_floats(changed: Iterable[Parameter[Any]]) -> list[Parameter[Any]]:
    """The same parameters, with floats for the integers that were given to float parameters."""
    return [
        Parameter(parameter.name, value=float(parameter.value))
        if type(parameter.value) is int
        and parameter.name in _FIELDS
        and isinstance(_FIELDS[parameter.name].default, float)
        else parameter
        for parameter in changed
    ]


def is_setting(name: str) -> bool:
    """Whether a parameter is one of `Settings`, and not rclpy's or the model's."""
    return name in _FIELDS


def read_settings(node: Node) -> Settings:
    """The parameters' present values."""
    return Settings(**{name: _value(node.get_parameter(name)) for name in _FIELDS})


def check_change(changed: Iterable[Parameter], configured: bool) -> SetParametersResult:
    """Whether parameters may take these values now."""
    problem = find_problem(changed, configured)
    return SetParametersResult(successful=not problem, reason=problem)


def find_problem(changed: Iterable[Parameter], configured: bool) -> str:
    """Why these values cannot be taken; empty if they can. Ranges are rclpy's to check."""
    for parameter in changed:
        spec = _FIELDS.get(parameter.name)
        if spec is None:
            continue
        value = _value(parameter)
        if type(value) is not type(spec.default):
            kind, hint = _TYPE_NAMES[type(spec.default)]
            return f"parameter '{parameter.name}' must be {kind}{hint}, not {parameter.value!r}"
        if isinstance(value, tuple) and (problem := _camera_problem(value)):
            return problem
        choices = spec.metadata["choices"]
        if choices and parameter.value not in choices:
            return (
                f"parameter '{parameter.name}' is '{parameter.value}', expected one of "
                f"{', '.join(choices)}"
            )
        if configured and spec.metadata["change"] == UNCONFIGURED:
            return f"parameter '{parameter.name}' can change only while the node is unconfigured"
    return ""


def _value(parameter: Parameter[Any]) -> Any:
    """A parameter's value, a tuple for an array."""
    return tuple(parameter.value) if isinstance(parameter.value, list) else parameter.value


def _camera_problem(names: tuple[str, ...]) -> str:
    if names in ((), ("",)):
        return ""
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*(/[A-Za-z]\w*)*", name):
            return (
                f"parameter 'cameras' names '{name}', expected a ROS namespace such as front or "
                "rig/left"
            )
    if len(set(names)) < len(names):
        return f"parameter 'cameras' names a camera twice: {', '.join(names)}"
    return ""


def _descriptor(name: str) -> ParameterDescriptor:
    spec = _FIELDS[name]
    descriptor = ParameterDescriptor(
        name=name,
        description=spec.metadata["description"],
        read_only=spec.metadata["change"] == AT_START,
    )
    constraints = []
    if spec.metadata["choices"]:
        constraints.append(f"one of {', '.join(spec.metadata['choices'])}")
    if spec.metadata["change"] != ANY_TIME:
        constraints.append(f"can be set {spec.metadata['change']}")
    descriptor.additional_constraints = "; ".join(constraints)
    limits = spec.metadata["limits"]
    if limits and isinstance(spec.default, int):
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1], step=0)]
    elif limits:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=limits[0], to_value=limits[1], step=0.0)
        ]
    return descriptor


def parameter_table() -> str:
    """The parameters as a Markdown table, for the documentation."""
    rows = ["| parameter | default | range | change | meaning |", "|---|---|---|---|---|"]
    for name, spec in _FIELDS.items():
        limits, choices = spec.metadata["limits"], spec.metadata["choices"]
        allowed = f"{limits[0]:g} – {limits[1]:g}" if limits else ""
        if choices:
            allowed = "a colour map" if choices is COLORMAP_NAMES else ", ".join(choices)
        default = str(spec.default).lower() if isinstance(spec.default, bool) else spec.default
        if isinstance(default, tuple):
            default = str(list(default)).replace("'", '"')
        rows.append(
            f"| `{name}` | `{default if default != '' else chr(34) * 2}` | {allowed} | "
            f"{spec.metadata['change']} | {spec.metadata['description']} |"
        )
    return "\n".join(rows)
