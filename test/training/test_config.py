"""Configurations: those that ship hold, and mistakes are told with the nearest key."""

from pathlib import Path

import pytest
import tiny
import torch
import yaml

from emu_perception.data import dataset_entry
from emu_perception.experiments.study_config import StudyConfig
from emu_perception.experiments.table_config import TableConfig
from emu_perception.labels import load_label_set
from emu_perception.networks.architectures import build_network
from emu_perception.resources import find_resource
from emu_perception.training import run
from emu_perception.training.builders import build_module
from emu_perception.training.config import TrainConfig
from emu_perception.training.config_file import json_schema, load_config, read_values
from emu_perception.training.data_config import DatasetConfig
from emu_perception.training.multitask.task_losses import find_loss
from emu_perception.training.run import describe_model
from emu_perception.training.settings import ConfigError, expand

TRAINING = sorted(find_resource("config", "train").glob("*/[!_]*.yaml"))
TABLES = sorted(find_resource("config", "studies", "tables").glob("*.yaml"))
STUDIES = sorted(
    p for p in find_resource("config", "studies").glob("*.yaml") if not p.stem.startswith("mining_")
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def write(file: Path, values: object) -> Path:
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_configurations_hold(path: Path) -> None:
    config = load_config(path)
    assert isinstance(config, TrainConfig)
    for data in [*config.data.train, config.data.validation]:
        entry = dataset_entry(data.name)
        assert set(data.options) <= set(entry.options)
    assert max(config.model.input_size) % 32 == min(config.model.input_size) % 32 == 0
    with torch.device("meta"):  # the architecture takes these arguments, and builds
        classes = 19 if "semantic" in config.model.tasks else None
        build_network(
            config.model.architecture,
            backbone=config.model.backbone,
            classes=classes,
            tasks=config.model.tasks,
            **config.model.arguments,
        )
    assert (config.distillation is not None) == ("distill" in path.stem)


def test_paper_settings() -> None:
    for data, name, epochs in (("cityscapes", "b2", 250), ("nyuv2", "b5", 100)):
        config = load_config(find_resource("config", "train", data, f"{name}.yaml"))
        assert (config.trainer.epochs, config.data.batch_size) == (epochs, 8)
        assert config.optimizer.learning_rate == 6e-5 and config.optimizer.head_factor == 10
        assert config.optimizer.weight_decay == 0.01 and config.optimizer.power == 0.9
        assert (config.loss.depth_weight, config.loss.kl_weight, config.loss.rmsle_weight) == (
            1,
            10,
            1,
        )
        assert config.data.augmentation.scale == (0.5, 2.0)


# Of the authors' code (astra-vision/DenseMTL, configs/): classes, height and width in training,
# weights of the tasks, learning rates of encoder and decoders.
DENSEMTL = {
    "vkitti2_sd": (14, (320, 1024), (50, 1), (2e-4, 3e-4)),
    "vkitti2_sdn": (14, (320, 1024), (100, 1, 100), (2e-4, 3e-4)),
    "synthia_sd": (16, (512, 1024), (50, 1), (2e-4, 3e-4)),
    "synthia_sdn": (16, (512, 1024), (100, 1, 100), (2e-4, 3e-4)),
    "cityscapes_sd": (16, (512, 1024), (50, 1), (1e-5, 1e-4)),
    "cityscapes_sdn": (16, (512, 1024), (100, 1, 100), (1e-5, 1e-4)),
    "cityscapes_sd_sequences": (16, (512, 512), (1, 1), (1e-5, 5e-5)),
    "nyuv2_sdn": (40, (448, 576), (100, 1, 100), (2e-4, 3e-4)),
    "nyuv2_sdne": (40, (448, 576), (100, 1, 100, 50), (2e-4, 3e-4)),
    "synthia_to_cityscapes": (16, (512, 1024), (50, 1), (1.5e-5, 2.5e-4)),
    "vkitti2_to_cityscapes": (8, (512, 1024), (50, 1), (1.5e-5, 2.5e-4)),
}


@pytest.mark.parametrize("name", DENSEMTL)
def test_settings_of_densemtl(name: str) -> None:
    classes, crop, weights, rates = DENSEMTL[name]
    dataset, _, kind = name.partition("_")
    folder = {"vkitti2": "virtual_kitti_2"}.get(dataset, dataset)
    config = load_config(find_resource("config", "train", folder, f"densemtl_{kind}.yaml"))
    tasks, optimizer, data = config.model.tasks, config.optimizer, config.data
    assert tuple(config.multitask.weighting.weights[task] for task in tasks) == weights
    learning_rate = optimizer.learning_rate
    assert (learning_rate, learning_rate * optimizer.head_factor) == pytest.approx(rates, rel=1e-4)
    assert optimizer.betas == ((0.9, 0.999) if "sequences" in name else (0.9, 0.98))
    assert (optimizer.name, optimizer.weight_decay, data.crop) == ("adam", 0, crop)
    for each in (data.train[0], data.validation):
        own = {"virtual_kitti_2": "virtual_kitti_2", "nyuv2": "nyuv2_40"}.get(each.name)
        label_set = load_label_set(each.label_set or own)
        assert len(label_set) == classes
        assert set(each.renamed.values()) <= set(label_set.names)
    size = native_size(data.train[0])
    assert size[0] * data.augmentation.scale[0] == crop[0]
    assert data.augmentation.scale[0] == data.augmentation.scale[1]
    steps = config.trainer.epochs * data.samples_per_epoch // data.batch_size
    adapted = config.multitask.adaptation
    if adapted is None:
        assert (optimizer.schedule, optimizer.step_size) == ("step", 30_000)
        assert (optimizer.clip_norm, optimizer.step_factor) == (10, 0.1)
        assert (data.batch_size, steps) == (2, 40_000)
    else:
        assert (optimizer.schedule, optimizer.clip_norm) == ("constant", None)
        assert (data.batch_size, steps) == (4, 90_000)
        assert (adapted.weight, adapted.learning_rate) == (0.005, 1e-4)
    for task in tasks:
        assert find_loss(task, config.multitask.losses.get(task)) is not None
    if name in ("cityscapes_sd", "synthia_sd"):
        with torch.device("meta"):
            network = build_network(
                config.model.architecture, backbone=config.model.backbone, classes=classes,
                tasks=tasks, **config.model.arguments,
            )  # fmt: skip
        assert sum(p.numel() for p in network.parameters()) == 87_399_458


def native_size(data: DatasetConfig) -> tuple[int, int]:
    """Height and width of a data set's images, as they are published or asked for."""
    published = {"cityscapes": (1024, 2048), "synthia": (760, 1280), "virtual_kitti_2": (375, 1242),
                 "nyuv2": (480, 640), "camvid": (360, 480), "ddad": (608, 968),
                 "mtan_cityscapes": (128, 256), "mtan_nyuv2": (288, 384)}  # fmt: skip
    default = dataset_entry(data.name).options.get("size")
    drawn = data.options.get("size", default.default if default else None)
    return data.size or data.options.get("stretch") or drawn or published[data.name]


def runs_of_all_studies() -> list[tuple[str, TrainConfig]]:
    studies = [load_config(path, StudyConfig) for path in STUDIES]
    return [(f"{s.output}: {row.name}", s.training(row, s.units()[0]))
            for s in studies for row in s.rows if row.trains]  # fmt: skip


def test_every_row_of_a_study_builds_the_module_that_trains_it() -> None:
    """The module, which may refuse what a network does not."""
    labels, networks, built = load_label_set("camvid"), {}, set()
    for name, config in runs_of_all_studies():
        spec = describe_model(config, labels if "semantic" in config.model.tasks else None)
        model = spec.model_dump_json(include={"architecture", "backbone", "tasks", "arguments"})
        kind = model + config.model_dump_json(include={"multitask", "loss"})
        if config.distillation is not None or kind in built:  # a teacher is a file
            continue
        built.add(kind)
        if model not in networks:  # what takes time
            networks[model] = spec.build()
        module = build_module(config, spec, networks[model])
        assert len(module.optimizer_groups()) >= 2, name


def test_densemtl_normalises_images_as_its_authors() -> None:
    config = load_config(find_resource("config", "train", "nyuv2", "densemtl_sdn.yaml"))
    spec = describe_model(config, load_label_set("nyuv2_13"))
    assert (spec.normalization_mean, spec.normalization_std) == ((0.45,) * 3, (0.225,) * 3)


def test_a_file_may_extend_another(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", tiny.values(tmp_path, tmp_path))
    values = {"extends": "base.yaml", "trainer": {"epochs": 7}, "data": {"crop": [64, 96]}}
    config, plain = load_config(write(tmp_path / "more.yaml", values)), load_config(base)
    assert (config.trainer.epochs, config.data.crop) == (7, (64, 96))
    assert (config.trainer.log_every, config.model) == (plain.trainer.log_every, plain.model)
    write(base, {"extends": "more.yaml"})
    with pytest.raises(ConfigError, match=r"extends .*base.yaml, which extends it"):
        load_config(base)
    with pytest.raises(ConfigError, match="which is not there"):
        load_config(write(base, {"extends": "nowhere.yaml"}))
    for name in ("x" * 100_000, "a\0b", [1] * 2000):
        with pytest.raises(ConfigError, match="which is no file name") as raised:
            load_config(write(base, {"extends": name}))
        assert len(str(raised.value)) - len(str(base)) < 200


def test_no_training_image_is_smaller_than_the_crop() -> None:
    shipped = [(f"{path.parent.name}_{path.stem}", load_config(path)) for path in TRAINING]
    trained = shipped + runs_of_all_studies()
    padded = set()
    for name, config in trained:
        low = config.data.augmentation.scale[0]
        for data in config.data.train:
            own = data.name == "folder" and not (data.size or "stretch" in data.options)
            if data.name == "pascal_context" or own:  # photographs of many sizes
                continue
            scaled = [round(side * low) for side in native_size(data)]
            if any(side < crop for side, crop in zip(scaled, config.data.crop, strict=True)):
                padded.add(name)
    # Their scaling pads by design, and no discriminator sees the borders.
    assert {
        n
        for n in padded
        if not n.removeprefix("runs/study/").startswith(
            ("cityscapes_b", "nyuv2_b", "scenes_b0", "street_", "rooms_")
        )
    } == set()


@pytest.mark.parametrize("path", TABLES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_tables_hold(path: Path) -> None:
    assert len(load_config(path, TableConfig).rows) >= 2


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        ("optimizer", "learning_rat", r"optimizer\.learning_rat: .*did you mean 'learning_rate'"),
        ("model", "backbon", r"model\.backbon: .*did you mean 'backbone'"),
        ("trainer", "epoch", r"trainer\.epoch: .*did you mean 'epochs'"),
    ],
)
def test_unknown_key_names_the_nearest(file: Path, group: str, key: str, message: str) -> None:
    values = tiny.values(Path("data"), Path("out"), **{group: {key: 1}})
    with pytest.raises(ConfigError, match=message):
        load_config(write(file, values))


def test_unknown_keys_deep_inside(file: Path) -> None:
    values = tiny.values(Path("data"), Path("out"))
    values["data"]["train"][0]["splitt"] = "train"
    values["distillation"] = {"teacher": ["t"], "jitter": {"hu": 0.1}}
    with pytest.raises(ConfigError) as caught:
        load_config(write(file, values))
    assert "data.train.0.splitt: there is no such key (did you mean 'split'?)" in str(caught.value)
    assert "did you mean 'hue'" in str(caught.value)


@pytest.mark.parametrize("key", ["batch_size", "x" * 5000])
def test_lines_about_unknown_keys_are_short(file: Path, key: str) -> None:
    values = tiny.values(Path("data"), Path("out"))
    values["model"][key] = 1
    with pytest.raises(ConfigError) as caught:
        load_config(write(file, values))
    assert max(map(len, str(caught.value).splitlines())) <= 300


SCENES = {"name": "scenes", "split": "test"}
PASTED = {**SCENES, "pasted": {"odd": SCENES, "known": SCENES, "classes": ["car"]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"arguments": {"split_uncertainty": True}}}, "add distillation"),
        ({"model": {"canonical_focal_length": 400.0}}, "scale_changes: camera"),
        ({"loss": {"depth": "huber"}}, r"huber trains no variance.*depth_variance: false"),
        ({"model": {"arguments": {"depth_variance": False}}}, r"take mse or huber"),
        ({"trainer": {"epochs": 0}}, r"trainer\.epochs: .*greater than 0"),
        ({"loss": {"depth": "l1"}}, r"loss\.depth: .*'gaussian', 'mse' or 'huber'"),
        (
            {"model": {"architecture": "densemtl"}, "loss": {"class_weights": {"pole": 2.0}}},
            "what densemtl learns by is in multitask.losses",
        ),
        ({"data": {"train": [PASTED]}}, "has things pasted in, which is for data to judge by"),
    ],
)
def test_values_that_do_not_suit(file: Path, change: dict, message: str) -> None:
    values = tiny.values(Path("data"), Path("out"), **change)
    with pytest.raises(ConfigError, match=message):
        load_config(write(file, values))


def test_not_a_mapping_and_not_yaml(file: Path) -> None:
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="keys and values"):
        load_config(file)
    file.write_text("a: [1")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(file)


def test_paths_fill_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/there")
    assert expand("$SOMEWHERE/data") == Path("/there/data")
    with pytest.raises(ConfigError, match="not set"):
        expand("$NOT_SET_ANYWHERE/data")


def test_unknown_argument_of_the_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="widht"):
        build_network("segdepthformer", backbone="mit_b0", classes=2, widht=8)


@pytest.mark.parametrize("kind", [TrainConfig, StudyConfig, TableConfig])
def test_the_schema_knows_the_keys_of_every_shipped_file(kind: type) -> None:
    schema = json_schema(kind)

    def unknown(values: object, group: dict) -> list[str]:
        while "$ref" in group or "anyOf" in group:
            options = [g for g in group.get("anyOf", [group]) if "$ref" in g]
            if not options:
                return []
            group = schema["$defs"][options[0]["$ref"].rpartition("/")[2]]
        if not isinstance(values, dict) or "properties" not in group:
            return []
        known = group["properties"]
        wrong = [key for key in values if key not in known]
        return wrong + [w for k in values if k in known for w in unknown(values[k], known[k])]

    files = {TrainConfig: TRAINING, StudyConfig: STUDIES, TableConfig: TABLES}[kind]
    assert unknown({"no_such_key": 1}, schema) == ["no_such_key"]
    for path in files:
        assert not unknown(read_values(path), schema), path


def test_a_run_with_settings_of_an_older_version_is_the_same(tmp_path: Path) -> None:
    config = tiny.config(tmp_path, tmp_path)
    values = config.model_dump(mode="json")
    values["loss"] |= {"normals_weight": 1.0, "edges_weight": 1.0}
    (tmp_path / run.CONFIG_FILE).write_text(yaml.safe_dump(values))
    (tmp_path / run.MODEL_FILE).touch()
    assert run.train(config, progress=False) == tmp_path / run.MODEL_FILE  # it is finished
    values["loss"]["edges_weight"] = 2.0  # which had an effect on students
    (tmp_path / run.CONFIG_FILE).write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="does not hold a run's settings"):
        run.train(config, progress=False)
