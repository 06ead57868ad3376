"""The Foxglove layout shows topics that the node has, of a type that its panel takes."""

from __future__ import annotations

import json
from typing import Any

from emu_perception.messages.compressed import COMPRESSED_OUTPUTS
from emu_perception.messages.topics import CAMERA_INFO_TOPIC, IMAGE_OUTPUTS, POINTS_TOPIC
from emu_perception.resources import find_resource

TOPICS = {
    "imageTopic": {*IMAGE_OUTPUTS, *COMPRESSED_OUTPUTS},
    "calibrationTopic": {CAMERA_INFO_TOPIC},
    "topicToRender": {"diagnostics"},
    "topics": {POINTS_TOPIC},
}
"""What may be named under each key of a panel's configuration."""


def named(values: Any, key: str = "") -> list[tuple[str, str]]:
    """All topics with the key that they are named under."""
    if isinstance(values, dict):
        own = [(key, name) for name in values if name.startswith("/")]
        return own + [found for k, v in values.items() for found in named(v, k)]
    return [(key, values)] if isinstance(values, str) and values.startswith("/") else []


def panels(layout: Any) -> set[str]:
    if isinstance(layout, str):
        return {layout}
    return panels(layout["first"]) | panels(layout["second"])


def test_every_topic_of_the_layout_exists() -> None:
    layout = json.loads(find_resource("config", "node", "foxglove.json").read_text("utf-8"))
    assert panels(layout["layout"]) == layout["configById"].keys()
    found = named(layout["configById"])
    assert {key for key, _ in found} == TOPICS.keys()
    for key, topic in found:
        assert topic.removeprefix("/") in TOPICS[key], (key, topic)
