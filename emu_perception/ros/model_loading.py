"""Load the node's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu_perception.messages.errors import BadInput, InputError
from emu_perception.ros.settings import Settings
from emu_perception.text import one_line

if TYPE_CHECKING:
    from emu_perception.inference.predictor import Predictor


def load_predictor(settings: Settings, logger: Any) -> Predictor:
    """Load the model of the settings and run it once.

    Raises:
        InputError: the file cannot be used, or a parameter does not suit.
    """
    # Only now: importing torch takes seconds, in which the node already answers.
    from emu_perception.inference.engines.cache import recall_image_size
    from emu_perception.inference.model_names import ModelFileError
    from emu_perception.inference.predictor import Predictor

    try:
        predictor = Predictor.from_pretrained(
            settings.model, settings.device, settings.precision, settings.engine
        )
    except ModelFileError as error:
        raise InputError(BadInput.MODEL_FILE, str(error)) from error
    except ValueError as error:
        raise InputError(BadInput.PARAMETER, str(error)) from error
    # The first inference of a size takes longer: here it delays no image. A camera's
    # images probably have the size of the last run.
    height, width = recall_image_size(predictor.path) or predictor.spec.input_size
    try:
        predictor.warm_up(height, width, settings.published_size(height, width))
    except ModelFileError as error:
        predictor.close()
        raise InputError(BadInput.MODEL_FILE, str(error)) from error
    logger.info(
        f"model {predictor.path} on {predictor.device} with {predictor.engine}, "
        f"{predictor.precision}"
    )
    spec = predictor.spec
    logger.info(
        one_line(
            f"licence of the model: {spec.license or 'not stated'}; trained on: "
            f"{spec.data or 'not stated'}"
        )
    )
    return predictor
