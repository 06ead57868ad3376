"""rosbag2 files: what is written is read back; what is damaged is named."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from emu_perception.camera import Intrinsics
from emu_perception.messages.camera_info import camera_model
from emu_perception.messages.images import map_values
from emu_perception.recordings import (
    BagError,
    BagReader,
    BagWriter,
)
from emu_perception.recordings.image_messages import (
    camera_info_message,
    compressed_image_message,
    header_stamp_ns,
    image_message,
    rgb,
    stamp_ns,
)
from emu_perception.recordings.reader import (
    COMPRESSED_IMAGE,
    IMAGE,
    message_types,
)

SHARED = Path(os.environ.get("EMU_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
CAMERA = Intrinsics.from_field_of_view(40, 30, 70)
STAMPS = [5_000_000_000 + i * 100_000_000 for i in range(4)]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)


def write_drive(path: Path, **options: Any) -> Path:
    with BagWriter(path, **options) as bag:
        for i, stamp in enumerate(STAMPS):
            bag.write("/camera/camera_info", camera_info_message(CAMERA, stamp), stamp)
            bag.write("/camera/image_raw", image_message(picture(i), stamp), stamp)
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_written_is_read_back(tmp_path: Path, storage: str, compress: bool) -> None:
    write_drive(tmp_path / "drive", storage=storage, compress=compress)
    with BagReader(tmp_path / "drive") as bag:
        topic = bag.image_topic()
        camera_info = bag.camera_info_topic(topic.name)
        assert (topic.name, topic.msgtype, topic.count) == ("/camera/image_raw", IMAGE, 4)
        assert camera_info is not None
        assert bag.duration == pytest.approx(0.3)
        messages = list(bag.messages([topic.name]))
        for i, message in enumerate(messages):
            image = bag.decode(message)
            assert message.time_ns == stamp_ns(image) == header_stamp_ns(message.data) == STAMPS[i]
            assert np.array_equal(rgb(image), picture(i))
        camera = bag.decode(next(bag.messages([camera_info.name])))
        assert camera_model(camera, (30, 40), "camera", rectified=True).intrinsics == CAMERA
        assert len(list(bag.messages())) == 8
        assert len(list(bag.messages(seconds=0.2))) == 4


def test_serialized_messages_are_copied_as_they_are(tmp_path: Path) -> None:
    write_drive(tmp_path / "a")
    with BagReader(tmp_path / "a") as source, BagWriter(tmp_path / "b") as copy:
        for message in source.messages():
            copy.write_cdr(message.topic, message.msgtype, message.data, message.time_ns)
    with BagReader(tmp_path / "a") as a, BagReader(tmp_path / "b") as b:
        assert list(a.messages()) == list(b.messages())


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_compressed_images_are_decoded_to_rgb(tmp_path: Path, image_format: str) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    _, data = cv2.imencode(f".{image_format}", red[..., ::-1])
    with BagWriter(tmp_path / "drive") as bag:
        message = compressed_image_message(data.tobytes(), image_format, 1)
        bag.write("/camera/image_raw/compressed", message, 1)
    with BagReader(tmp_path / "drive") as bag:
        topic = bag.image_topic()
        assert topic.msgtype == COMPRESSED_IMAGE
        decoded = rgb(bag.decode(next(bag.messages([topic.name]))))
    assert np.abs(decoded.astype(int) - red).max() <= 2


def raw(encoding: str, step: int, data: np.ndarray, size: tuple[int, int], big: int = 0) -> Any:
    message = image_message(np.zeros((*size, 3), np.uint8), 0)
    message.encoding, message.step, message.is_bigendian = encoding, step, big
    message.data = data.reshape(-1).view(np.uint8)
    return message


def test_images_are_converted_as_the_node_does() -> None:
    image = picture(0)
    assert np.array_equal(rgb(raw("bgr8", 120, image[..., ::-1].copy(), (30, 40))), image)
    gray = rgb(raw("mono8", 40, image[..., 0].copy(), (30, 40)))
    assert np.array_equal(gray, np.repeat(image[..., :1], 3, axis=2))
    with pytest.raises(ValueError, match="'rgb9'"):
        rgb(raw("rgb9", 120, image, (30, 40)))
    with pytest.raises(ValueError, match="expected sensor_msgs/msg/Image"):
        rgb(camera_info_message(CAMERA, 0))


def test_maps_honour_padding_and_byte_order() -> None:
    ids = picture(0)[..., 0]
    padded = np.zeros((30, 50), np.uint8)
    padded[:, :40] = ids
    assert np.array_equal(map_values(raw("mono8", 50, padded, (30, 40))), ids)
    depth = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    assert np.array_equal(map_values(raw("32FC1", 160, depth, (30, 40))), depth)
    assert np.array_equal(map_values(raw("32FC1", 160, depth.astype(">f4"), (30, 40), 1)), depth)


@pytest.mark.parametrize(
    ("encoding", "step", "size", "complaint"),
    [
        ("rgb8", 40, (30, 40), "'rgb8', expected one of mono8"),
        ("mono8", 39, (30, 40), "rows of 39 bytes do not make 40 x 30"),
        ("mono8", 40, (31, 40), "1200 bytes of data"),
        ("32FC1", 40, (30, 40), "32FC1"),
    ],
)
def test_wrong_maps_are_refused(
    encoding: str, step: int, size: tuple[int, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        map_values(raw(encoding, step, picture(0)[..., 0].copy(), size))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 no jpeg"])
def test_corrupt_compressed_images_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="compressed image"):
        rgb(compressed_image_message(data, "jpeg", 0))


def test_stamps_are_read_in_either_byte_order() -> None:
    assert header_stamp_ns(b"\x00\x01\x00\x00" + bytes([2, 0, 0, 0, 3, 0, 0, 0])) == 2_000_000_003
    assert header_stamp_ns(b"\x00\x00\x00\x00" + bytes([0, 0, 0, 2, 0, 0, 0, 3])) == 2_000_000_003
    with pytest.raises(ValueError, match="6 bytes are too few"):
        header_stamp_ns(b"\x00\x01\x00\x00\x00\x00")


def test_a_message_of_garbage_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        bag.write_cdr("/camera/image_raw", IMAGE, b"\x00\x01\x00\x00\x01\x02", 7)
    with BagReader(tmp_path / "drive") as bag:
        message = next(bag.messages())
        with pytest.raises(BagError, match=r"drive: .* 7 ns on /camera/image_raw is no"):
            bag.decode(message)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_truncated_bags_are_read_to_their_end(tmp_path: Path, storage: str, compress: bool) -> None:
    path = write_drive(tmp_path / "drive", storage=storage, compress=compress)
    with BagReader(path) as bag:
        whole = list(bag.messages())
    (file,) = (f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
    content = file.read_bytes()
    counts = []
    for share in (0.95, 0.75, 0.001):
        file.write_bytes(content[: int(len(content) * share)])
        try:
            with BagReader(path) as bag:
                found = list(bag.messages())
                assert sum(topic.count for topic in bag.topics) == len(found)
                assert found == whole[: len(found)]
                assert bag.damage
                assert [stamp_ns(bag.decode(m)) for m in found] == [m.time_ns for m in found]
        except BagError:
            found = []
        counts.append(len(found))
    assert counts[0] >= 6 and counts[2] == 0 and counts == sorted(counts, reverse=True)
    with pytest.raises(BagError, match="damaged, and nothing of it can be read"), BagReader(path):
        pass
    # Of a packed chunk that is all there is, nothing is left.
    assert counts[1] > 0 or (storage, compress) == ("mcap", True)


@pytest.mark.parametrize("metadata", [None, "", "a: [", "rosbag2_bagfile_information: {}"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_can_be_done_without(tmp_path: Path, storage: str, metadata: str | None) -> None:
    path = write_drive(tmp_path / "drive", storage=storage, compress=True)
    with BagReader(path) as bag:
        whole = list(bag.messages())
    (path / "metadata.yaml").unlink()
    if metadata is not None:
        (path / "metadata.yaml").write_text(metadata)
    with BagReader(path) as bag:
        assert len(bag.damage) == 1
        assert bag.image_topic().count == 4
        assert bag.duration == pytest.approx(0.3)
        assert list(bag.messages()) == whole
        assert len(list(bag.messages(["/camera/image_raw"], seconds=0.2))) == 2


def test_files_without_metadata_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    for number in (10, 2):
        part = tmp_path / f"part_{number}"
        with BagWriter(part) as bag:
            bag.write("/camera", image_message(picture(0), number), number)
        (part / f"{part.name}.mcap").rename(tmp_path / "whole" / f"drive_{number}.mcap")
    with BagReader(tmp_path / "whole") as bag:
        assert [m.time_ns for m in bag.messages()] == [2, 10]


def test_the_log_of_an_interrupted_recording_is_read(tmp_path: Path) -> None:
    path = write_drive(tmp_path / "drive", storage="sqlite3")
    file = path / "drive.db3"
    recording = sqlite3.connect(file)
    recording.execute("PRAGMA journal_mode = WAL")
    recording.execute(
        "INSERT INTO messages(topic_id, timestamp, data) "
        "SELECT topic_id, timestamp + 1000, data FROM messages WHERE id = 1"
    )
    recording.commit()
    with BagReader(path) as bag:  # while it is still open: its log is not merged
        assert "drive.db3-wal" in bag.damage[0]
        assert len(list(bag.messages())) == 9
    recording.close()


def test_types_without_a_definition_leave_the_others_readable(tmp_path: Path) -> None:
    path = write_drive(tmp_path / "drive", storage="sqlite3")
    with closing(sqlite3.connect(path / "drive.db3")) as database:
        database.execute("UPDATE topics SET type = 'odd_msgs/msg/Odd' WHERE name LIKE '%info'")
        database.execute("DELETE FROM message_definitions WHERE topic_type LIKE '%CameraInfo'")
        database.commit()
    (path / "metadata.yaml").unlink()
    with BagReader(path) as bag:
        assert [t.msgtype for t in bag.topics] == ["odd_msgs/msg/Odd", IMAGE]
        images = [bag.decode(m) for m in bag.messages(["/camera/image_raw"])]
        assert np.array_equal(rgb(images[3]), picture(3))
        with pytest.raises(BagError, match="odd_msgs"):
            bag.decode(next(bag.messages(["/camera/camera_info"])))


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no such bag"):
        BagReader(tmp_path / "nowhere")
    with pytest.raises(BagError, match="expected a rosbag2 folder"):
        BagReader(tmp_path)
    file = tmp_path / "film.mp4"
    file.touch()
    with pytest.raises(BagError, match="not a rosbag2"):
        BagReader(file)


def test_topics_are_found_by_type_or_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        for side in ("left", "right"):
            bag.write(f"/{side}/image_raw", image_message(picture(0), 1), 1)
            bag.write(f"/{side}/camera_info", camera_info_message(CAMERA, 1), 1)
            jpeg = compressed_image_message(b"x", "jpeg", 1)
            bag.write(f"/{side}/image_raw/compressed", jpeg, 1)
    with BagReader(tmp_path / "drive") as bag:
        with pytest.raises(BagError, match=r"several topics.*/left/image_raw \(1\)"):
            bag.image_topic()
        with pytest.raises(BagError, match=r"no images on '/top'.*/right/image_raw"):
            bag.image_topic("/top")
        with pytest.raises(BagError, match=r"no topic /top; it has .*/left/camera_info"):
            list(bag.messages(["/top"]))
        assert bag.image_topic("/right/image_raw/compressed").msgtype == COMPRESSED_IMAGE
        beside = bag.camera_info_topic("/right/image_raw/compressed")
        assert beside is not None
        assert beside.name == "/right/camera_info"


def test_a_raw_topic_comes_before_its_compressed_sibling(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        jpeg = compressed_image_message(b"x", "jpeg", 1)
        bag.write("/camera/image_raw/compressed", jpeg, 1)
        bag.write("/camera/image_raw", image_message(picture(0), 1), 1)
    with BagReader(tmp_path / "drive") as bag:
        assert bag.image_topic().name == "/camera/image_raw"
        assert bag.camera_info_topic("/camera/image_raw") is None


def test_a_bag_without_images_says_what_it_has(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        text = message_types().types["std_msgs/msg/String"]("hello")
        bag.write("/chatter", text, 1)
    with (
        BagReader(tmp_path / "drive") as bag,
        pytest.raises(BagError, match=r"found /chatter \[std_msgs/msg/String\]"),
    ):
        bag.image_topic()


def test_only_bags_are_overwritten(tmp_path: Path) -> None:
    path = write_drive(tmp_path / "drive")
    with pytest.raises(BagError, match="exists already"):
        BagWriter(path)
    write_drive(path, overwrite=True)
    precious = path / "thesis.txt"
    precious.touch()
    with pytest.raises(BagError, match="exists already"):
        BagWriter(path, overwrite=True)
    assert precious.exists()


def test_a_topic_keeps_its_type(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        bag.write("/camera", image_message(picture(0), 1), 1)
        with pytest.raises(BagError, match="/camera holds sensor_msgs/msg/Image"):
            bag.write("/camera", camera_info_message(CAMERA, 1), 1)
        with pytest.raises(BagError, match="unknown message type"):
            bag.write_cdr("/other", "no_msgs/msg/Such", b"", 1)


def test_an_interrupted_recording_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "drive") as bag:  # noqa: PT012
        bag.write("/camera", image_message(picture(0), 1), 1)
        raise KeyboardInterrupt
    with BagReader(tmp_path / "drive") as bag:
        assert bag.image_topic().count == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_a_recording_of_real_camera_images() -> None:
    with BagReader(SHARED / "bags" / "camvid_val") as bag:
        topic = bag.image_topic()
        assert (topic.msgtype, topic.count) == (COMPRESSED_IMAGE, 101)
        assert bag.duration == pytest.approx(100 / 15, abs=1e-3)
        images = [rgb(bag.decode(m)) for m in bag.messages([topic.name], seconds=1.0)]
    assert len(images) == 15
    for image, file in zip(images, sorted((SHARED / "camvid" / "val" / "images").iterdir())):
        original = cv2.imread(str(file))[..., ::-1].astype(float)
        assert np.abs(image - original).mean() < 4
