"""Starting from a trained model with other classes or tasks; the terminal output of training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from typer.testing import CliRunner

pytest.importorskip("lightning")

from emu_perception.cli import app
from emu_perception.inference.model_file import LoadedModel, load_model
from emu_perception.labels import LabelSet, load_label_set
from emu_perception.resources import find_resource
from emu_perception.training import run
from emu_perception.training.config import TrainConfig
from emu_perception.training.config_file import load_config, read_values
from emu_perception.training.console import ProgressBar
from emu_perception.training.start import start_from

TRAINING = sorted(find_resource("config", "train").glob("*/[!_]*.yaml"))
STUDIES = sorted(find_resource("config", "studies").glob("*.yaml"))
OWN = LabelSet("own", ("floor", "car", "road"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))


@pytest.fixture(scope="module")
def trained(write_model: Callable[..., Path]) -> Path:
    return write_model(folder="trained", depth_mean=30.0)


def test_classes_are_matched_by_name_and_the_rest_is_reported(
    trained: Path, make_model: Callable[..., LoadedModel]
) -> None:
    model = make_model(label_set=OWN, depth_mean=1.0)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    report = start_from(model.network, model.spec, trained)
    old, new = load_model(trained).network.state_dict(), model.network.state_dict()
    camvid = load_label_set("camvid")
    for name, value in new.items():
        if ".semantic.predict." in name:
            assert torch.equal(value[0], before[name][0])
            assert torch.equal(value[1], old[name][camvid.index("car")])
            assert torch.equal(value[2], old[name][camvid.index("road")])
        else:
            assert torch.equal(value, old[name]), name
    assert (report.kept, report.total) == (len(new), len(new))
    assert report.fresh_classes == ["floor"] and not report.fresh and not report.unused
    assert "initialised again: the classes floor" in report.lines()


def test_as_many_classes_of_other_names_are_not_copied_by_position(
    trained: Path, make_model: Callable[..., LoadedModel]
) -> None:
    camvid = load_label_set("camvid")
    names = (*camvid.names[1:], "robot")
    model = make_model(label_set=LabelSet("own", names, camvid.colors))
    start_from(model.network, model.spec, trained)
    old, new = load_model(trained).network.state_dict(), model.network.state_dict()
    name = "decoders.semantic.predict.weight"
    assert torch.equal(new[name][:-1], old[name][1:])


def test_fewer_tasks_leave_a_decoder_out(
    trained: Path, make_model: Callable[..., LoadedModel]
) -> None:
    model = make_model(tasks=("depth",))
    report = start_from(model.network, model.spec, trained)
    assert report.unused == ["decoders.semantic"] and report.kept == report.total


def test_more_tasks_get_a_new_decoder(
    make_model: Callable[..., LoadedModel], write_model: Callable[..., Path]
) -> None:
    source = write_model(folder="depth", tasks=("depth",))
    model = make_model()
    report = start_from(model.network, model.spec, source)
    assert report.fresh and all(n.startswith("decoders.semantic.") for n in report.fresh)
    assert report.kept + len(report.fresh) == report.total


def test_another_encoder_is_refused(trained: Path, make_model: Callable[..., LoadedModel]) -> None:
    model = make_model(backbone="mit_b1")
    with pytest.raises(ValueError, match=r"mit_b0, and the new model is .* mit_b1"):
        start_from(model.network, model.spec, trained)


def test_a_short_run_logs_pictures_and_the_iou_of_each_class(
    tmp_path: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny.write_data(tmp_path / "data")
    split = {"name": "nyuv2", "root": str(data), "split": "all", "options": {"classes": 13}}
    changes: dict[str, Any] = {
        "data": {"validation": split},
        "trainer": {"epochs": 1},
        "model": {"arguments": {"width": 16}, "start_from": str(trained)},
    }
    with caplog.at_level(logging.INFO, "emu_perception"):
        file = run.train(tiny.config(data, tmp_path / "run", **changes), progress=False)
    assert "tensors are kept" in caplog.text and "initialised again" in caplog.text
    curves = next((tmp_path / "run" / "curves").glob("events*")).read_bytes()
    assert b"validation/iou/" in curves and b"PNG" in curves
    assert not any("iou/" in str(value) for value in load_model(file).spec.metrics.values())


def test_the_bar_shows_no_version() -> None:
    bar = ProgressBar()

    class Trainer:
        loggers = (type("Logger", (), {"version": "curves"})(),)
        progress_bar_metrics = {"validation/miou": 0.5, "train/loss": 1.0}  # noqa: RUF012

    found = bar.get_metrics(Trainer(), None)  # type: ignore[arg-type]
    assert found == {"miou": 0.5, "train/loss": 1.0}


def test_ctrl_c_ends_with_the_status_of_an_interrupted_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupt)
    config = Path(__file__).parents[2] / "config" / "train" / "scenes" / "b0.yaml"
    result = CliRunner().invoke(app, ["train", "--config", str(config)])
    assert result.exit_code == 130


def starting() -> Iterator[tuple[str, TrainConfig]]:
    """Shipped configurations that start from a run's model, by file."""
    for path in TRAINING:
        yield path.stem, load_config(path)
    for path in STUDIES:
        base = read_values(path).get("base", {})
        if "start_from" in base.get("model", {}):
            yield path.stem, TrainConfig.model_validate({**base, "output": "runs/study"})


@pytest.mark.parametrize(
    ("name", "config"),
    [(n, c) for n, c in starting() if (c.model.start_from or "").startswith("runs/")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shipped_configuration_makes_what_others_start_from(
    name: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.model.start_from is not None
    folder = Path(config.model.start_from).parent
    folder = folder.parent if folder.name.startswith("member_") else folder
    makers = [maker for maker in map(load_config, TRAINING) if maker.output == str(folder)]
    assert len(makers) == 1, f"{len(makers)} configurations have the output {folder}"
    first, second = makers[0].model, config.model
    assert first.backbone == second.backbone
    assert first.arguments.get("rays") == second.arguments.get("rays")
    assert first.canonical_focal_length == second.canonical_focal_length
    labels = load_label_set("camvid")
    mine, its = (run.describe_model(each, labels) for each in (config, makers[0]))
    with torch.device("meta"):  # shapes alone
        source = LoadedModel(its.build(), its, Path(config.model.start_from))
        monkeypatch.setattr("emu_perception.training.start.load_model", lambda path: source)
        report = start_from(mine.build(), mine, source.path)
    assert report.kept > 0 and not [n for n in report.fresh if n.startswith("encoder.")]
