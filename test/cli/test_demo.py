"""The demo as people run it: real rclpy and Fast DDS, node, player and recorder as processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emu_perception import cli
from emu_perception.cli.demo import run
from emu_perception.cli.demo.drive import write_street_drive
from emu_perception.inference.model_file import LoadedModel
from emu_perception.inference.model_spec import ModelSpec
from emu_perception.labels import load_label_set
from emu_perception.messages.images import map_values
from emu_perception.processes import ProcessError
from emu_perception.recordings import BagReader
from emu_perception.recordings.image_messages import header_stamp_ns, stamp_ns

pytest.importorskip("rclpy")

HEIGHT, WIDTH = 120, 160


@pytest.fixture(scope="module")
def model_file(write_model: Callable[..., Path]) -> Path:
    return write_model(input_size=(64, 96), depth_mean=20.0, folder="a model's folder")


def test_the_demo_from_the_drive_to_the_panels(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = f"demo --render --seconds 2 --rate 5 --size {WIDTH}x{HEIGHT} --panels 2".split()
    arguments += ["--out", str(tmp_path), "--model", str(model_file)]
    monkeypatch.setattr(sys, "argv", ["emu", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code

    with BagReader(tmp_path / "drive") as bag:
        sent = [header_stamp_ns(m.data) for m in bag.messages(["/camera/image_raw"])]
    assert len(sent) == 10
    answered: dict[str, list[int]] = {}
    with BagReader(tmp_path / "recording") as bag:
        for message in bag.messages():
            if message.topic == "/diagnostics":
                continue
            image = bag.decode(message)
            answered.setdefault(message.topic, []).append(stamp_ns(image))
            values = map_values(image)
            assert values.shape == (HEIGHT, WIDTH)
            if message.topic == "/semantic/labels":
                assert values.max() < 11
            if message.topic == "/semantic/uncertainty":
                assert 0 < values.min() <= values.max() <= 1 + 1e-5
            if message.topic.startswith("/depth"):
                assert np.nanmin(values) > 0
    assert set(answered) == {t for topics in run.MAP_TOPICS.values() for t in topics}
    for stamps in answered.values():
        assert len(set(stamps)) == len(stamps)
        assert set(stamps) <= set(sent)

    result = json.loads((tmp_path / "demo.json").read_text())
    complete = set.intersection(*(set(stamps) for stamps in answered.values()))
    assert result["frames_sent"] == 10
    assert result["frames_answered"] == len(complete) > 0
    assert result["frames_dropped"] == 10 - len(complete)
    assert result["sent_rate_hz"] == pytest.approx(5, rel=0.3)
    assert 0 < result["latency_p50_ms"] <= result["latency_p95_ms"] <= result["latency_max_ms"]
    assert result["node_diagnostics"]["device"].startswith("cpu")

    for name in ("overview.png", "panels/frame_00.png", "panels/frame_01.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 10
    assert not (tmp_path / "panels" / "frame_02.png").exists()


@pytest.mark.parametrize(
    ("tasks", "variance", "topics"),
    [
        (["semantic", "depth", "normals"], True, 5),
        (["semantic", "depth", "normals"], False, 4),
        (["normals"], False, 0),
    ],
)
def test_what_is_recorded_is_what_the_model_gives(
    tasks: list[str], variance: bool, topics: int
) -> None:
    spec = ModelSpec(
        architecture="densemtl",
        backbone="resnet18",
        tasks=tuple(tasks),
        arguments={"depth_variance": variance, "width": 0.1, "dilated": False},
        label_set=load_label_set("camvid"),
        input_size=(64, 96),
    )
    model = LoadedModel(spec.build(), spec, Path("model"))
    if not topics:
        with pytest.raises(ProcessError, match="neither classes nor depth"):
            run.recorded_topics(model)
        return
    found = run.recorded_topics(model)
    assert len(found) == topics and ("/depth/uncertainty" in found) == variance


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "import sys\nsys.exit('out of luck')\n",
            r"node process ended early with status 1[\s\S]*out of luck",
        ),
        (
            "import signal, rclpy\n"
            "from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn\n"
            "class Failing(LifecycleNode):\n"
            "    def on_configure(self, state):\n"
            "        self.get_logger().error('no such model')\n"
            "        return TransitionCallbackReturn.FAILURE\n"
            "rclpy.init()\n"
            "node = Failing('emu_perception')\n"
            "node.trigger_configure()\n"
            "try: rclpy.spin(node)\n"
            "except BaseException: pass\n",
            r"did not become active; it is unconfigured[\s\S]*no such model",
        ),
    ],
    ids=["dies", "fails to configure"],
)
def test_a_failing_node_is_an_error_with_its_log(
    tmp_path: Path,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    complaint: str,
) -> None:
    (tmp_path / "failing_node.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(run, "NODE_MODULE", "failing_node")
    write_street_drive(tmp_path / "drive", seconds=0.2, rate=5, size=(16, 16))
    with pytest.raises(ProcessError, match=complaint):
        run.run_demo(tmp_path / "drive", tmp_path / "rec", model_file, logs=tmp_path / "logs")
