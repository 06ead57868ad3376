"""The launch file and the files in config/ agree with the node.

launch and launch_ros are not among the ROS packages that pip installs, so recordings stand in.
"""

from __future__ import annotations

import os
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from rclpy.node import Node

from emu_perception.inference.model_file import read_spec
from emu_perception.inference.model_names import resolve_model_path
from emu_perception.messages.topics import IMAGE_OUTPUTS, POINTS_TOPIC
from emu_perception.resources import find_resource
from emu_perception.ros.bag_player import parse as player_options
from emu_perception.ros.parameters import declare_parameters
from emu_perception.ros.settings import Settings
from emu_perception.transport import PROFILE_VARIABLE, PROFILES

from .launch_stand_ins import (
    SHARE,
    STAND_INS,
    Action,
    Context,
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LaunchedNode,
    LogInfo,
    OpaqueFunction,
    ProcessExited,
    SetEnvironmentVariable,
    Shutdown,
)

LAUNCH_FILE = find_resource("launch", "emu_perception.launch.py")
DEFAULTS = {f.name: f.default for f in fields(Settings) if f.default is not MISSING}


@pytest.fixture
def description(describe: Callable[[str], list[Action]]) -> list[Action]:
    """What the node's launch file describes."""
    return describe("emu_perception.launch.py")


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Action]]:
    """Reads a launch file."""
    for name, content in STAND_INS.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return lambda name: runpy.run_path(str(LAUNCH_FILE.parent / name))[
        "generate_launch_description"
    ]()


def declared(description: list[Action]) -> dict[str, dict[str, Any]]:
    return {a.args[0]: a.options for a in description if isinstance(a, DeclareLaunchArgument)}


def launch(
    description: list[Action], environment: dict[str, str] | None = None, **arguments: str
) -> SimpleNamespace:
    """Environment and nodes that `ros2 launch` would come to; nodes by their executable."""
    context = Context({}, dict(environment or {}))
    assert arguments.keys() <= declared(description).keys()
    nodes: dict[str, dict[str, Any]] = {}
    messages: list[str] = []
    pending = list(description)
    while pending:
        action = pending.pop(0)
        if isinstance(action, DeclareLaunchArgument):
            name = action.args[0]
            default = context.value(action.options["default_value"])
            context.arguments[name] = arguments.get(name, default)
        elif isinstance(action, SetEnvironmentVariable):
            name, value = map(context.value, action.args)
            context.environment[name] = value
        elif isinstance(action, LogInfo):
            messages.append(action.options["msg"])
        elif isinstance(action, OpaqueFunction):
            pending = [*action.options["function"](context), *pending]
        elif isinstance(action, LaunchedNode):
            condition = action.options.get("condition")
            if condition is None or condition.evaluate(context):
                nodes[action.options["executable"]] = performed(action, context)
        else:
            pytest.fail(f"an action that nobody knows: {action}")
    return SimpleNamespace(environment=context.environment, nodes=nodes, messages=messages)


def performed(node: LaunchedNode, context: Context) -> dict[str, Any]:
    values = {k: v for k, v in node.options.items() if k != "condition"}
    for name in ("name", "namespace"):
        values[name] = context.value(values.get(name, ""))
    for name in ("arguments", "parameters"):
        values[name] = [context.value(v) for v in values.get(name, [])]
    values["remappings"] = {
        source: context.value(to) for source, to in values.get("remappings", [])
    }
    return values


def test_arguments(description: list[Action]) -> None:
    arguments = declared(description)
    assert all(options["description"] for options in arguments.values())
    defaults = {name: options["default_value"] for name, options in arguments.items()}
    params_file = defaults.pop("params_file").perform(Context({}, {}))
    assert Path(params_file) == SHARE / "config" / "node" / "emu_perception.yaml"
    assert defaults == {
        "image_topic": "image",
        "camera_info_topic": "camera_info",
        "namespace": "",
        "node_name": "emu_perception",
        "rviz": "false",
        "fixed_frame": "camera",
        "log_level": "info",
        "model": "",
        "image_transport": "",
        "device": "",
        "precision": "",
        "autostart": "",
        "use_sim_time": "",
    }
    # Those that are parameters of the node are called as the node calls them.
    own = {"image_topic", "camera_info_topic", "namespace", "node_name", "rviz"}
    own |= {"fixed_frame", "log_level", "use_sim_time"}
    assert defaults.keys() - own <= DEFAULTS.keys()


def test_the_node_by_default(description: list[Action]) -> None:
    nodes = launch(description).nodes
    assert list(nodes) == ["emu_node"]
    node = nodes["emu_node"]
    assert (node["executable"], node["name"], node["namespace"]) == (
        "emu_node",
        "emu_perception",
        "",
    )
    assert node["parameters"] == [str(SHARE / "config" / "node" / "emu_perception.yaml")]
    assert node["remappings"] == {"image": "image", "camera_info": "camera_info"}
    assert node["arguments"] == ["--ros-args", "--log-level", "info"]


def test_the_node_is_what_the_arguments_say(description: list[Action]) -> None:
    node = launch(
        description,
        node_name="eyes",
        namespace="/front",
        image_topic="/front/image_raw",
        camera_info_topic="/front/camera_info",
        params_file="/etc/eyes.yaml",
        log_level="debug",
        model="1",
        device="cuda:1",
        precision="bf16",
        image_transport="compressed",
        autostart="false",
        use_sim_time="true",
    ).nodes["emu_node"]
    assert (node["name"], node["namespace"]) == ("eyes", "/front")
    assert node["remappings"] == {
        "image": "/front/image_raw",
        "camera_info": "/front/camera_info",
    }
    assert node["arguments"][-1] == "debug"
    # The file first: later ones win.
    assert node["parameters"] == [
        "/etc/eyes.yaml",
        {
            "model": "1",
            "device": "cuda:1",
            "precision": "bf16",
            "image_transport": "compressed",
            "autostart": False,
            "use_sim_time": True,
        },
    ]


def test_fast_dds_gets_the_profile_unless_there_is_one(description: list[Action]) -> None:
    name = "FASTDDS_DEFAULT_PROFILES_FILE"
    path = launch(description).environment[name]
    assert Path(path) == SHARE / "config" / "node" / "fastdds.xml"
    own = launch(description, {name: "/etc/own.xml"})
    assert own.environment[name] == "/etc/own.xml"


@pytest.mark.parametrize("file", ["emu_perception.launch.py", "replay.launch.py"])
@pytest.mark.parametrize(
    ("free", "profile"),
    [(1 << 30, "fastdds.xml"), (64 << 20, "fastdds_small.xml"), (1 << 20, "fastdds_udp.xml")],
)
def test_small_shared_memory_gets_a_profile_that_fits(
    describe: Callable[[str], list[Action]],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    free: int,
    profile: str,
) -> None:
    monkeypatch.setattr("emu_perception.transport.free_bytes", lambda: free)
    needed = {"bag": "/drive", "image_topic": "/camera"} if file.startswith("replay") else {}
    found = launch(describe(file), **needed)
    assert Path(found.environment[PROFILE_VARIABLE]).name == profile
    assert Path(found.environment[PROFILE_VARIABLE]).is_file()
    if free < 1 << 30:
        (message,) = found.messages
        assert f"{free >> 20} MiB free" in message and "--shm-size" in message
    else:
        assert not found.messages


def test_rviz_only_if_asked(description: list[Action]) -> None:
    assert "rviz2" not in launch(description).nodes
    rviz = launch(
        description, rviz="true", namespace="front", image_topic="/cam", fixed_frame="map"
    ).nodes["rviz2"]
    assert rviz["executable"] == "rviz2"
    assert rviz["namespace"] == "front"
    layout = str(SHARE / "config" / "node" / "emu_perception.rviz")
    assert rviz["arguments"] == ["-d", layout, "-f", "map"]
    # Every topic of the layout follows the namespace, the image its argument.
    assert rviz["remappings"].pop("/image") == "/cam"
    assert {f"/{to}": to for to in rviz["remappings"].values()} == rviz["remappings"]
    assert rviz["remappings"].keys() == layout_topics() - {"/image"}


def test_a_replay_is_node_evaluator_and_a_player_that_ends_it(
    describe: Callable[[str], list[Action]],
) -> None:
    replay = describe("replay.launch.py")
    assert all(options["description"] for options in declared(replay).values())
    found = launch(
        replay,
        bag="/drive",
        image_topic="/camera/image_raw",
        image_transport="compressed",
        labels="/labels",
        depth_scale="0.01",
        report="/report",
    )
    assert found.environment["FASTDDS_DEFAULT_PROFILES_FILE"] == str(
        SHARE / "config" / "node" / "fastdds.xml"
    )
    node, evaluator, player = (
        found.nodes[name] for name in ("emu_node", "emu_evaluator", "emu_bag_player")
    )
    assert node["remappings"] == evaluator["remappings"]
    assert node["remappings"]["image"] == "/camera/image_raw"
    # The model that the parameters' file names is the evaluator's, too.
    common = {"image_transport": "compressed"}
    assert node["parameters"][-1] == common
    own = {**common, "depth_scale": 0.01, "report": "/report"}
    assert evaluator["parameters"] == [node["parameters"][0], own]
    options = player_options(player["arguments"])
    assert (options.bag, options.image_topic) == ("/drive", "/camera/image_raw/compressed")
    assert (options.labels, options.depth_scale) == (Path("/labels"), 0.01)
    assert options.paced
    # An exception in an event handler is how a launch ends with a status other than 0.
    context = Context({}, {})
    (ended,) = player["on_exit"](ProcessExited(0), context)
    assert isinstance(ended, Shutdown)
    for status, reason in ((3, "not every image"), (1, "could not be played")):
        with pytest.raises(RuntimeError, match=f"{reason}.*status {status}"):
            player["on_exit"](ProcessExited(status), context)
    named = launch(replay, bag="/drive", image_topic="/camera", model="street_scenes_lite0").nodes
    for name in ("emu_node", "emu_evaluator"):
        assert named[name]["parameters"][-1]["model"] == "street_scenes_lite0"


# Files in config/


def layout_topics() -> set[str]:
    path = find_resource("config", "node", "emu_perception.rviz")
    layout = yaml.safe_load(path.read_text("utf-8"))
    displays = layout["Visualization Manager"]["Displays"]
    return {d["Topic"]["Value"] for d in displays if "Topic" in d}


def test_rviz_shows_topics_of_the_node() -> None:
    topics = {topic.removeprefix("/") for topic in layout_topics()}
    assert topics <= IMAGE_OUTPUTS.keys() | {POINTS_TOPIC, "image"}
    assert {"overlay", "depth/color", POINTS_TOPIC} <= topics


def parameters_file() -> dict[str, Any]:
    text = find_resource("config", "node", "emu_perception.yaml").read_text("utf-8")
    return yaml.safe_load(text)["/**"]["ros__parameters"]


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_parameters_file_holds_the_default(name: str) -> None:
    given = parameters_file()[name]
    given = tuple(given) if isinstance(given, list) else given
    # rcl takes `80` for an integer and then refuses it where a float is declared.
    assert (type(given), given) == (type(DEFAULTS[name]), DEFAULTS[name])


def test_the_parameters_file_holds_nothing_else() -> None:
    assert parameters_file().keys() == DEFAULTS.keys()


@pytest.fixture
def parametrized_node() -> Iterator[Node]:
    path = find_resource("config", "node", "emu_perception.yaml")
    node = Node("reader", cli_args=["--ros-args", "--params-file", os.fspath(path)])
    yield node
    node.destroy_node()


def test_ros_reads_the_parameters_file(parametrized_node: Node) -> None:
    assert declare_parameters(parametrized_node) == Settings()


def test_the_nav2_example_manages_the_node_without_a_bond(
    describe: Callable[[str], list[Action]],
) -> None:
    actions = describe(str(LAUNCH_FILE.parents[1] / "examples" / "nav2" / "bringup.launch.py"))
    (manager,) = (a for a in actions if isinstance(a, LaunchedNode))
    (parameters,) = manager.options["parameters"]
    assert parameters["bond_timeout"] == 0.0 and parameters["node_names"] == ["emu_perception"]
    (node,) = (a for a in actions if isinstance(a, IncludeLaunchDescription))
    context = Context({name: name for name in declared(actions)}, {})
    assert Path(node.args[0].perform(context)) == LAUNCH_FILE
    given = {k: context.value(v) for k, v in node.options["launch_arguments"]}
    assert given.keys() <= declared(describe(LAUNCH_FILE.name)).keys()
    file = yaml.safe_load(Path(given["params_file"]).read_text("utf-8"))["/**"]["ros__parameters"]
    assert {k: type(v) for k, v in file.items()} == {k: type(DEFAULTS[k]) for k in file}
    assert file["autostart"] is False and file["max_height"] < 10


def test_nav2_knows_every_class_and_topic() -> None:
    path = find_resource("config", "node", "nav2_semantic_layer.yaml")
    file = yaml.safe_load(path.read_text("utf-8"))
    costmap = file["local_costmap"]["local_costmap"]["ros__parameters"]
    assert all(plugin in costmap for plugin in costmap["plugins"])
    layer = costmap["semantic_layer"]
    default = read_spec(resolve_model_path("")).label_set
    assert default is not None
    for name in layer["observation_sources"].split():
        source = layer[name]
        classes = [name for kind in source["class_types"] for name in source[kind]["classes"]]
        assert sorted(classes) == sorted(default.names)
        topics = {k: v.removeprefix("/") for k, v in source.items() if k.endswith("_topic")}
        assert topics.pop("labels_topic") == "semantic/label_info"
        assert topics.pop("pointcloud_topic") == POINTS_TOPIC
        encodings = {k: IMAGE_OUTPUTS[topic].encoding for k, topic in topics.items()}
        assert encodings == {"segmentation_topic": "mono8", "confidence_topic": "mono8"}


@pytest.mark.parametrize("name", PROFILES)
def test_fast_dds_profile(name: str) -> None:
    root = ElementTree.parse(find_resource("config", "node", name)).getroot()
    namespace = {"dds": "http://www.eprosima.com"}
    transports = {
        t.findtext("dds:transport_id", namespaces=namespace): t
        for t in root.iterfind(".//dds:transport_descriptor", namespace)
    }
    if "shared_memory" in transports:
        memory = transports["shared_memory"]
        assert memory.findtext("dds:type", namespaces=namespace) == "SHM"
        segment = int(memory.findtext("dds:segment_size", namespaces=namespace) or 0)
        # One of the camera's and one of the node's fit.
        assert 2 * segment < PROFILES[name]
        # A message holds more than one 1080p image, a segment two.
        largest = int(memory.findtext("dds:maxMessageSize", namespaces=namespace) or 0)
        assert largest > 1920 * 1080 * 3 and 2 * largest <= segment
    else:
        assert PROFILES[name] == 0
    participant = root.find(".//dds:participant", namespace)
    assert participant is not None
    assert participant.get("is_default_profile") == "true"
    used = participant.iterfind(".//dds:userTransports/dds:transport_id", namespace)
    assert {t.text for t in used} == transports.keys()
