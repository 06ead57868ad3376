"""Models that know the epistemic part of their uncertainties, in the node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emu_perception.inference.methods import deep_ensemble, monte_carlo_dropout
from emu_perception.inference.model_file import save_model

from .conftest import SIZE, wait_for

TOPICS = ("semantic/epistemic_uncertainty", "depth/epistemic_uncertainty")
TOTAL = ("semantic/uncertainty", "depth/uncertainty")


@pytest.mark.parametrize("method", ["split uncertainty", "ensemble", "sampled dropout"])
def test_epistemic_topics(start_node, robot, make_model, tmp_path: Path, method: str) -> None:
    arguments = {"width": 8, "split_uncertainty": method == "split uncertainty"}
    model = make_model(arguments=arguments)
    if method == "ensemble":
        other = make_model(arguments=arguments, depth_mean=12.0)
        other.network.decoders["semantic"].predict.bias.data[3] += 1
        model = deep_ensemble([model, other])
    elif method == "sampled dropout":
        model = monte_carlo_dropout(model, 0.5, samples=2)
    path = tmp_path / "model.safetensors"
    save_model(path, model.network, model.spec)
    node = start_node(model=str(path))
    wait_for(lambda: node.state == "active", "the node to become active")
    outputs = (*TOPICS, *TOTAL)
    robot.listen(*outputs)
    wait_for(  # an image is answered on the outputs that have a subscriber by then
        lambda: (
            {p.topic_name for p in node.publishers if p.get_subscription_count()}
            >= {node.resolve_topic_name(topic) for topic in outputs}
        ),
        "the node to know all subscribers",
    )
    image = robot.send_image()
    maps = {}
    for topic in outputs:
        message = robot.wait_for_answer(image, topic)
        assert (message.height, message.width, message.encoding) == (*SIZE, "32FC1")
        assert message.header == image.header
        maps[topic] = np.frombuffer(message.data, np.float32)
    for part, total in zip(TOPICS, TOTAL, strict=True):
        known = np.isfinite(maps[total])
        assert known.any() and np.array_equal(known, np.isfinite(maps[part])), part
        assert (maps[part][known] > 0).any() and (maps[part][known] >= 0).all()
        assert (maps[part][known] <= maps[total][known] + 1e-5).all(), part
    if method == "ensemble":
        assert np.allclose(maps[TOPICS[1]][known], 1, atol=1e-4)  # means 2 m apart
