"""A DenseMTL file in the node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from emu_perception.inference.model_file import save_model
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set

from .conftest import SIZE, wait_for


def test_the_node_runs_a_file_with_exchange_between_tasks(start_node, robot, tmp_path: Path):
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="densemtl",
        backbone="resnet10t",
        tasks=("semantic", "depth", "normals"),
        arguments={"depth_variance": True, "dilated": False},
        label_set=load_label_set("camvid"),
        input_size=(64, 64),
        depth_range=(0.1, 1000.0),
    )
    network = spec.build()
    network.initialise_depth_mean(10.0)
    path = tmp_path / "densemtl.safetensors"
    save_model(path, network, spec)
    topics = {"semantic/labels": "mono8", "depth/image": "32FC1", "depth/uncertainty": "32FC1"}
    node = start_node(model=str(path))
    wait_for(lambda: node.state == "active", "the node to become active")
    robot.listen(*topics)
    image = robot.send_image()
    for topic, encoding in topics.items():
        message = robot.wait_for_answer(image, topic)
        assert (message.height, message.width, message.encoding) == (*SIZE, encoding)
        assert message.header == image.header
    deviation = np.frombuffer(message.data, np.float32)
    assert (deviation[np.isfinite(deviation)] > 0).all() and np.isfinite(deviation).any()
