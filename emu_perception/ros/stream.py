"""One camera of the node: its subscriptions, its outputs, its statistics, its pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emu_perception.messages.errors import BadInput
from emu_perception.ros.heights import Heights
from emu_perception.ros.image_input import Frame, ImageInput
from emu_perception.ros.pipeline import Pipeline
from emu_perception.ros.publishers import OutputPublishers
from emu_perception.ros.settings import Settings
from emu_perception.ros.statistics import Statistics

if TYPE_CHECKING:
    from emu_perception.inference.predictor import Predictor


class CameraStream:
    """Creates the topics of one camera.

    Args:
        node: the owner, a lifecycle node.
        name: of the camera, the namespace of its topics; empty for the only one.
        predictor: shared by all cameras.
        heights: of the points, shared by all cameras.
        statistics: of this camera.
        settings: gives the parameters' present values.
        report: called with bad input.
        on_match: called when a subscriber of an output comes or goes.
        offer: called with this camera's pipeline and each image.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        predictor: Predictor,
        heights: Heights,
        statistics: Statistics,
        settings: Callable[[], Settings],
        report: Callable[[BadInput, str], None],
        on_match: Callable[[], None],
        offer: Callable[[Pipeline, Frame], None],
    ) -> None:
        self.name = name
        self._logger = node.get_logger()
        self._announced = False
        self._transport_problem = ""
        self._warned = ""
        self.statistics = statistics
        self._settings = settings
        self._report = report
        prefix = f"{name}/" if name else ""
        self.outputs = OutputPublishers(node, prefix, predictor.available_maps, on_match)
        try:
            self.source = ImageInput(
                node,
                prefix,
                settings().image_transport,
                settings().input_reliability,
                on_received=statistics.received,
                on_frame=lambda frame: offer(self._pipeline, frame),
                on_overtaken=statistics.overtaken,
                on_unwanted=statistics.unwanted,
                on_silence=lambda message: report(BadInput.CAMERA_INFO, message),
            )
        except Exception:
            self.outputs.destroy()
            raise
        self._pipeline = Pipeline(
            predictor, self.outputs, self.source, heights, statistics, settings, report
        )

    def listen_if_wanted(self) -> None:
        """Subscribe to the camera while an output has a subscriber or alarms watch."""
        source = self.source
        wanted = self._settings().monitor_rate > 0 or bool(self.outputs.wanted())
        if wanted != source.is_open:
            self.statistics.listening(wanted)
        if wanted and not self._announced:
            self._announced = True
            self._logger.info(f"active; waiting for images on {source.topic}")
        try:
            source.open() if wanted else source.close()
        except Exception as error:  # such as an override that is no QoS
            self._report(BadInput.PARAMETER, f"cannot subscribe to {source.topic}: {error}")

    def find_transport_problem(self) -> str:
        """Look whether the camera publishes in the other transport only; a warning in the log.

        Publishers are discovered one after the other: a problem counts at the second look.
        """
        before, self._transport_problem = self._transport_problem, self.source.transport_problem()
        if not before or before != self._transport_problem:
            return ""
        if before != self._warned:
            self._warned = before
            self._logger.warning(before)
        return before

    def close(self) -> None:
        """Unsubscribe from the camera."""
        self._announced = False
        self.source.close()
        self.statistics.listening(False)

    def destroy(self) -> None:
        """Take all topics off the graph."""
        self.source.destroy()
        self.outputs.destroy()
