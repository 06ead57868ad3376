"""Declare the node's parameters and check their changes; `settings` lists them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
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

from emu_perception.ros.settings import ANY_TIME, AT_START, FIELDS, UNCONFIGURED, Settings


class ParameterError(ValueError):
    """A parameter's value cannot be used; the message names it and what is expected."""


OTHERS = ("qos_overrides.", "class_names")
"""Beginnings of names that are declared after the start."""
_TYPE_NAMES: dict[type, tuple[str, str]] = {
    bool: ("true or false", ""),
    int: ("an integer", ""),
    float: ("a number", ""),
    str: ("a string", ", if need be in quotes"),
    tuple: ("a list of strings", ", as in [front, left]"),
}


def declare_parameters(node: Node) -> Settings:
    """Declare every parameter and read what the user gave.

    Raises:
        ParameterError: a given value has the wrong type or is out of range.
    """
    for name, spec in FIELDS.items():
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
    problem = find_problem(node.get_parameters(list(FIELDS)), configured=False)
    if problem:
        raise ParameterError(problem)
    return settings


def describe_unknown(node: Node) -> str:
    """Name the parameters that were given at the start and that the node lacks; empty if none.

    A misspelt name would otherwise be ignored without a word: the default stays in effect.
    """
    unknown = [
        name
        for name in getattr(node, "_parameter_overrides", ())  # rclpy has no public list
        if not (node.has_parameter(name) or name.startswith(OTHERS))
    ]
    hints = []
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hints.append(f"'{name}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
    return f"unknown parameters are ignored: {', '.join(hints)}" if hints else ""


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
        and parameter.name in FIELDS
        and isinstance(FIELDS[parameter.name].default, float)
        else parameter
        for parameter in changed
    ]


def is_setting(name: str) -> bool:
    """Whether a parameter is one of `Settings`, and not rclpy's or the model's."""
    return name in FIELDS


def read_settings(node: Node) -> Settings:
    """The parameters' present values."""
    return Settings(**{name: _value(node.get_parameter(name)) for name in FIELDS})


def check_change(changed: Iterable[Parameter], configured: bool) -> SetParametersResult:
    """Whether parameters may take these values now."""
    problem = find_problem(changed, configured)
    return SetParametersResult(successful=not problem, reason=problem)


def find_problem(changed: Iterable[Parameter], configured: bool) -> str:
    """Why these values cannot be taken; empty if they can. Ranges are rclpy's to check."""
    for parameter in changed:
        spec = FIELDS.get(parameter.name)
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
    spec = FIELDS[name]
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
