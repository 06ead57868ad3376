"""`emu predict`: panels and raw maps of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emu_perception.cli.options import (
    DeviceOption,
    EngineOption,
    FocalLengthOption,
    FovOption,
    IntrinsicsOption,
    ModelOption,
    PrecisionOption,
)

if TYPE_CHECKING:
    import numpy as np

    from emu_perception.camera import Intrinsics
    from emu_perception.inference.model_spec import ModelSpec
    from emu_perception.prediction import Prediction

DEPTH_UNITS_PER_METRE = 256
"""16-bit depth PNGs hold metres times this number, as KITTI's do; 0 means invalid."""


MAP_FORMATS = ("npz", "png")
"""File formats of raw maps."""


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, folders or videos.")],
    model: ModelOption = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "predictions"
    ),
    save: Annotated[
        list[str] | None,
        typer.Option(help="Also save the raw maps: npz (arrays) or png. Can be repeated."),
    ] = None,
    max_depth: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Metres at the end of the depth colours.", show_default="fits each image"
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Use every n-th image of a folder or video.")
    ] = 1,
    focal_length: FocalLengthOption = None,
    fov: FovOption = None,
    intrinsics: IntrinsicsOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Predict classes, depth and both uncertainties, and draw them as one picture per image."""
    from emu_perception.cli.cameras import CameraChoice
    from emu_perception.cli.sources import Sources
    from emu_perception.images import write_png
    from emu_perception.inference.predictor import Predictor
    from emu_perception.visualization.panels import Scales, panel

    unknown = set(save or ()) - set(MAP_FORMATS)
    if unknown:
        raise typer.BadParameter(f"--save must be npz or png, got '{min(unknown)}'")
    camera = CameraChoice(focal_length, fov, intrinsics)
    sources = Sources(images, every)
    given = {file.resolve() for file in sources.files}
    for file in sources.files:
        if (out / f"{file.stem}.png").resolve() in given:
            raise ValueError(f"{out / file.stem}.png is one of the images: choose another --out")
    predictor = Predictor.from_pretrained(model, device, precision, engine)
    scales = None if max_depth is None else Scales(max_depth, max_depth / 4)
    out.mkdir(parents=True, exist_ok=True)
    assumed = False
    for each in sources:
        height, width = each.image.shape[:2]
        known = camera.intrinsics(width, height)
        prediction = predictor.predict(each.image, known)
        target = out / f"{each.name}.png"
        camera_facts = _camera_facts(predictor.spec, known, width, height)
        picture = panel(
            each.image,
            prediction,
            predictor.label_set,
            title=each.title,
            notes=camera_facts,
            scales=scales,
        )
        write_png(target, picture)
        if "npz" in (save or ()):
            _save_npz(out / f"{each.name}.npz", prediction, predictor.spec)
        if "png" in (save or ()):
            _save_png(out, each.name, prediction, predictor.spec)
        facts = [f"{width} x {height}", *camera_facts]
        typer.echo(f"{each.title}: {', '.join([*facts, *_map_facts(prediction)])} -> {target}")
        assumed = assumed or (known is None and predictor.spec.camera is not None)
    if assumed:
        typer.echo(
            "Depth scales with the focal length. Give it with --focal-length, --fov or "
            "--intrinsics."
        )


def _camera_facts(spec: ModelSpec, known: Intrinsics | None, width: int, height: int) -> list[str]:
    if known is not None:
        return [f"focal length {known.fx:.0f} px"]
    if spec.camera is None:
        return []
    focal = spec.camera.assume(width, height).fx
    return [f"focal length {focal:.0f} px (assumed: {focal / width:.2g} x width)"]


def _map_facts(prediction: Prediction) -> list[str]:
    import numpy as np

    depth = np.empty(0) if prediction.depth is None else prediction.depth
    valid = depth[np.isfinite(depth)]
    facts = [f"depth {valid.min():.1f} to {valid.max():.3g} m" if valid.size else "no valid depth"]
    if prediction.domain_distance is not None:
        unlike = ": unlike the training data" if prediction.domain_distance > 1 else ""
        facts.append(f"domain distance {prediction.domain_distance:.2f}{unlike}")
    return facts


def _maps(prediction: Prediction, spec: ModelSpec) -> dict[str, np.ndarray]:
    """All maps in their published units, by name."""
    import numpy as np

    from emu_perception.tasks import other_tasks

    maps = {
        name: value
        for name in ("labels", "confidence", "depth", *(t.field for t in other_tasks().values()))
        if (value := prediction.get(name)) is not None
    }
    if prediction.depth_std is not None:
        maps["depth_std"] = prediction.depth_std
    if prediction.semantic_entropy is not None and spec.label_set is not None:
        most = np.float32(np.log(max(len(spec.label_set), 2)))
        maps["semantic_uncertainty"] = prediction.semantic_entropy / most
    return maps


def _save_npz(path: Path, prediction: Prediction, spec: ModelSpec) -> None:
    import numpy as np

    from emu_perception.atomic import replacing

    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **_maps(prediction, spec))  # type: ignore[arg-type]


def _save_png(folder: Path, name: str, prediction: Prediction, spec: ModelSpec) -> None:
    """Write ids and 16-bit images: metres x 256 (0 = invalid), fractions x 65535."""
    import numpy as np

    from emu_perception.images import write_png

    for kind, value in _maps(prediction, spec).items():
        if value.ndim != 2:
            continue
        if value.dtype != np.uint8:
            scale = DEPTH_UNITS_PER_METRE if kind.startswith("depth") else 65535
            value = np.clip(np.nan_to_num(value) * scale + 0.5, 0, 65535).astype(np.uint16)
        write_png(folder / f"{name}.{kind}.png", value)
