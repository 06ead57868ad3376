"""The SROS2 policy allows the node what it uses, and no wildcard."""

from __future__ import annotations

from xml.etree import ElementTree

from emu_perception.messages.compressed import COMPRESSED_OUTPUTS
from emu_perception.messages.topics import (
    CAMERA_INFO_TOPIC,
    LABEL_INFO_TOPIC,
    POINTS_TOPIC,
    image_outputs,
)
from emu_perception.resources import find_resource
from emu_perception.ros.image_input import CAMERA_INFO_INPUT, IMAGE_INPUT
from emu_perception.ros.node import NODE_NAME


def test_every_topic_of_the_node_is_allowed_by_name() -> None:
    path = find_resource("config", "node", "sros2", "emu_perception.policy.xml")
    policy = ElementTree.parse(path).getroot()
    profile = policy.find(f".//profile[@node='{NODE_NAME}']")
    assert profile is not None

    def topics(access: str) -> set[str]:
        found = profile.findall(f"topics[@{access}='ALLOW']/topic")
        return {topic.text or "" for topic in found}

    outputs = {*image_outputs(), *COMPRESSED_OUTPUTS, CAMERA_INFO_TOPIC, LABEL_INFO_TOPIC}
    outputs |= {POINTS_TOPIC, "diagnostics"}
    assert outputs <= topics("publish")
    assert {IMAGE_INPUT, f"{IMAGE_INPUT}/compressed", CAMERA_INFO_INPUT} <= topics("subscribe")
    names = [e.text or "" for e in policy.iter() if e.tag in ("topic", "service")]
    assert names and not any("*" in name for name in names)
