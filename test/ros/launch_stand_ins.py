"""Recordings that stand in for launch and launch_ros, which pip does not install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emu_perception.resources import find_resource

SHARE = find_resource("launch", "emu_perception.launch.py").parent.parent


class Context:
    """A launch context: the arguments, and the environment of the processes."""

    def __init__(self, arguments: dict[str, str], environment: dict[str, str]) -> None:
        self.arguments = arguments
        self.environment = environment

    def value(self, item: Any) -> Any:
        """What a text or a substitution comes to."""
        return item.perform(self) if hasattr(item, "perform") else item


class LaunchConfiguration:
    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: Context) -> str:
        return context.arguments[self.name]


class EnvironmentVariable:
    def __init__(self, name: str, *, default_value: Any = None) -> None:
        self.name, self.default = name, default_value

    def perform(self, context: Context) -> str:
        if self.name in context.environment:
            return context.environment[self.name]
        assert self.default is not None
        return context.value(self.default)


class PathJoinSubstitution:
    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def perform(self, context: Context) -> str:
        return str(Path(*map(context.value, self.parts)))


class FindPackageShare:
    def __init__(self, package: str) -> None:
        self.package = package

    def perform(self, context: Context) -> str:
        assert self.package == "emu_perception"
        return str(SHARE)


class IfCondition:
    def __init__(self, expression: Any) -> None:
        self.expression = expression

    def evaluate(self, context: Context) -> bool:
        return {"true": True, "1": True, "false": False, "0": False}[
            context.value(self.expression).lower()
        ]


class Action:
    """An action that remembers what it was made of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options = args, options


class DeclareLaunchArgument(Action):
    pass


class IncludeLaunchDescription(Action):
    pass


class LogInfo(Action):
    pass


class OpaqueFunction(Action):
    pass


class SetEnvironmentVariable(Action):
    pass


class LaunchedNode(Action):
    pass


class Shutdown(Action):
    pass


class ProcessExited:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


STAND_INS: dict[str, dict[str, Any]] = {
    "launch": {"LaunchContext": Context, "LaunchDescription": list},
    "launch.actions": {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "IncludeLaunchDescription": IncludeLaunchDescription,
        "LogInfo": LogInfo,
        "OpaqueFunction": OpaqueFunction,
        "SetEnvironmentVariable": SetEnvironmentVariable,
        "Shutdown": Shutdown,
    },
    "launch.events": {},
    "launch.events.process": {"ProcessExited": ProcessExited},
    "launch.conditions": {"IfCondition": IfCondition},
    "launch.launch_description_sources": {"PythonLaunchDescriptionSource": lambda path: path},
    "launch.substitutions": {
        "EnvironmentVariable": EnvironmentVariable,
        "LaunchConfiguration": LaunchConfiguration,
        "PathJoinSubstitution": PathJoinSubstitution,
    },
    "launch_ros": {},
    "launch_ros.actions": {"Node": LaunchedNode},
    "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
}
