"""The lifecycle node: images in, semantic class, depth and the uncertainty of both out."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from emu_perception.ros.diagnostics import NodeState, diagnose
from emu_perception.ros.errors import BadInput, InputError
from emu_perception.ros.executor import NodeExecutor, TransitionGroup, keep_freed_memory
from emu_perception.ros.image_input import Frame, ImageInput
from emu_perception.ros.messages import label_info_message
from emu_perception.ros.parameters import (
    ParameterError,
    check_change,
    declare_parameters,
    is_setting,
    read_settings,
    with_floats,
)
from emu_perception.ros.pipeline import Pipeline
from emu_perception.ros.publishers import OutputPublishers
from emu_perception.ros.statistics import Statistics
from emu_perception.ros.worker import Worker

if TYPE_CHECKING:
    from emu_perception.predictor import Predictor

NODE_NAME = "emu_perception"
CLASS_NAMES = "class_names"
DIAGNOSTICS_PERIOD = 1.0


class EmuNode(LifecycleNodeMixin, Node):
    """Subscribes to a camera, publishes what a model says about its images.

    Unconfigured, it only reports diagnostics. Configuring loads the model, activating begins to
    listen as soon as somebody subscribes to an output.

    Raises:
        ParameterError: a parameter given at the start cannot be used.
    """

    def __init__(self, **arguments: Any) -> None:
        Node.__init__(self, NODE_NAME, **arguments)
        self._transitions = TransitionGroup()
        # Not LifecycleNode: it leaves the services in the group of all others, where a slow
        # transition blocks even the question for the state.
        LifecycleNodeMixin.__init__(self, callback_group=self._transitions)
        self._statistics = Statistics()
        self._state = "unconfigured"
        self._failure = ""
        # The executor's thread listens and a transition's stops listening: one at a time.
        self._listening = threading.RLock()
        self._predictor: Predictor | None = None
        self._outputs: OutputPublishers | None = None
        self._input: ImageInput | None = None
        self._pipeline: Pipeline | None = None
        self._worker: Worker[Frame] | None = None

        try:
            self._settings = declare_parameters(self)
        except ParameterError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_change)
        self.add_post_set_parameters_callback(self._take_settings)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        # The node's own clock stands still when a looping bag jumps back in time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._tick, clock=steady)
        if self._settings.autostart:
            self._start_timer = self.create_timer(
                0.0, self._autostart, callback_group=self._transitions, clock=steady
            )

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        return self._state

    # Lifecycle transitions: an exception in one would vanish, so they are caught and logged.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, announce the topics."""

        def configure() -> None:
            self._predictor = self._load_model()
            self._outputs = OutputPublishers(
                self, self._predictor.available_maps, self._listen_if_wanted
            )
            self._input = ImageInput(
                self,
                self._settings.image_transport,
                self._settings.input_reliability,
                self._receive,
            )
            self._pipeline = Pipeline(
                self._predictor,
                self._outputs,
                self._input,
                self._statistics,
                lambda: self._settings,
                self._report,
            )
            self._publish_class_names()

        self._state = "configuring"
        if not self._succeeds("configure", configure):
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to answer."""
        pipeline = self._pipeline
        assert pipeline is not None
        # Before anything is published: a publisher drops what it gets while it is inactive.
        result = super().on_activate(state)

        def activate() -> None:
            self._worker = Worker(pipeline.process, "inference")
            self._state = "active"
            self._publish_label_info()
            self._listen_if_wanted()

        if not self._succeeds("activate", activate):
            self._stop()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the model stays loaded."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the model, take the topics off the graph."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload everything."""
        self._release()
        self._state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def set_parameters_atomically(
        self, parameter_list: list[Parameter[Any]]
    ) -> SetParametersResult:
        """As rclpy's, which also serves the parameter services; refusals are counted."""
        parameter_list = with_floats(parameter_list)
        # Once before rclpy's checks, which report two numbers of a wrong type without its name.
        result = self._check_change(parameter_list)
        try:
            if result.successful:
                result = super().set_parameters_atomically(parameter_list)
        except ParameterNotDeclaredException as error:
            self._report(BadInput.PARAMETER, str(error))
            raise
        if not result.successful:
            self._report(BadInput.PARAMETER, result.reason)
        return result

    def destroy_node(self) -> None:
        """Stop the worker, free the model, destroy the node."""
        self._stop()
        if self._predictor is not None:
            self._predictor.close()
        super().destroy_node()

    def _autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _load_model(self) -> Predictor:
        # Only now: importing torch takes seconds, in which the node already answers.
        from emu_perception.engines.cache import recall_image_size
        from emu_perception.model_file import ModelFileError
        from emu_perception.predictor import Predictor

        settings = self._settings
        try:
            predictor = Predictor.from_file(
                settings.model, settings.device, settings.precision, settings.engine
            )
        except ModelFileError as error:
            raise InputError(BadInput.MODEL_FILE, str(error)) from error
        except ValueError as error:
            raise InputError(BadInput.PARAMETER, str(error)) from error
        # The first inference of a size takes longer: here it delays nobody. A camera's images are
        # of the size that they were of the last time.
        height, width = recall_image_size(predictor.path) or predictor.spec.input_size
        predictor.predict(
            np.zeros((height, width, 3), np.uint8),
            output_size=settings.published_size(height, width),
        )
        self.get_logger().info(
            f"model {predictor.path} on {predictor.device} with {predictor.engine}, "
            f"{predictor.precision}"
        )
        spec = predictor.spec
        self.get_logger().info(
            f"license of the model: {spec.license or 'not stated'}; trained on: "
            f"{spec.data or 'not stated'}"
        )
        return predictor

    def _succeeds(self, transition: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except InputError as error:
            self._failure = f"{transition} failed: {error}"
            self._report(error.kind, self._failure)
            return False
        except Exception as error:
            self._failure = f"{transition} failed: {type(error).__name__}: {error}"
            self.get_logger().error(self._failure)
            return False
        self._failure = ""
        return True

    def _stop(self) -> None:
        with self._listening:
            self._state = "inactive"
            if self._input is not None:
                self._input.close()
                self._statistics.listening(False)
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _release(self) -> None:
        self._stop()
        self._state = "unconfigured"
        if self._outputs is not None:
            self._outputs.destroy()
        predictor, self._predictor = self._predictor, None
        self._outputs = self._input = self._pipeline = None
        if predictor is not None:
            predictor.close()
        del predictor
        gc.collect()

    def _listen_if_wanted(self) -> None:
        """Subscribe to the camera while somebody subscribes to an output, or alarms watch."""
        with self._listening:
            source, outputs = self._input, self._outputs
            if source is None or outputs is None or self._state != "active":
                return
            wanted = self._settings.monitor_rate > 0 or bool(outputs.wanted())
            if wanted != source.is_open:
                self._statistics.listening(wanted)
            try:
                source.open() if wanted else source.close()
            except Exception as error:  # such as an override that is no QoS
                self._report(BadInput.PARAMETER, f"cannot subscribe to {source.topic}: {error}")

    def _receive(self, frame: Frame, lost: int) -> None:
        worker = self._worker
        if worker is None:
            return
        self._statistics.received(lost)
        if worker.offer(frame):
            self._statistics.overtaken()

    def _check_change(self, changed: list[Parameter[Any]]) -> SetParametersResult:
        return check_change(changed, configured=self._state != "unconfigured")

    def _take_settings(self, changed: list[Parameter[Any]]) -> None:
        # Creating a subscription declares parameters too, those that override its QoS.
        if not any(is_setting(parameter.name) for parameter in changed):
            return
        before, self._settings = self._settings, read_settings(self)
        if before.min_confidence != self._settings.min_confidence and self._state == "active":
            self._publish_label_info()
        self._listen_if_wanted()

    def _publish_class_names(self) -> None:
        assert self._predictor is not None
        label_set = self._predictor.label_set
        names = list(label_set.names) if label_set else []
        value = Parameter(CLASS_NAMES, Parameter.Type.STRING_ARRAY, names)
        if not self.has_parameter(CLASS_NAMES):
            self.declare_parameter(
                CLASS_NAMES,
                Parameter.Type.STRING_ARRAY,
                ParameterDescriptor(description="Names of the class ids 0, 1, …, by the model."),
                ignore_override=True,
            )
        # Read-only for everybody else; another model has other classes.
        descriptor = self.describe_parameter(CLASS_NAMES)
        descriptor.read_only = False
        self.set_parameters([value])
        descriptor.read_only = True

    def _publish_label_info(self) -> None:
        predictor, outputs = self._predictor, self._outputs
        if predictor is None or outputs is None or predictor.label_set is None:
            return
        if outputs.has_label_info:
            header = Header(stamp=self.get_clock().now().to_msg())
            outputs.publish_label_info(
                label_info_message(header, predictor.label_set, self._settings.min_confidence)
            )

    def _report(self, kind: BadInput, message: str) -> None:
        if not self.context.ok():  # ended by a signal: what cannot be published is no fault
            return
        line = self._statistics.bad(kind, message)
        if line is not None:
            self.get_logger().error(line)

    def _tick(self) -> None:
        self._listen_if_wanted()
        predictor, source = self._predictor, self._input
        state = NodeState(
            name=self.get_fully_qualified_name(),
            lifecycle=self._state,
            failure=self._failure,
        )
        if predictor is not None and source is not None:
            state = NodeState(
                name=state.name,
                lifecycle=state.lifecycle,
                failure=state.failure,
                input_topic=source.topic,
                model=predictor.path.name,
                device=f"{predictor.device} ({predictor.engine})",
                precision=predictor.precision,
            )
        message = DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()))
        settings = self._settings
        counts = self._statistics.snapshot(settings.statistics_seconds)
        message.status = [diagnose(state, counts, settings)]
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Entry point of `emu_node`; returns the process's exit status."""
    keep_freed_memory()
    try:
        rclpy.init(args=args)
        node = EmuNode()
    except (ParameterError, RuntimeError) as error:
        print(f"emu_node cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = NodeExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
