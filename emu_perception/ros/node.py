"""The lifecycle node: images in, semantic class, depth and the uncertainty of both out."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from emu_perception.messages.create import label_info_message
from emu_perception.messages.errors import BadInput, InputError
from emu_perception.ros.diagnostics import NodeState, diagnose
from emu_perception.ros.executor import TransitionGroup
from emu_perception.ros.heights import Heights
from emu_perception.ros.image_input import Frame
from emu_perception.ros.model_loading import load_predictor
from emu_perception.ros.parameters import (
    ParameterError,
    check_change,
    declare_parameters,
    describe_unknown,
    is_setting,
    read_settings,
    with_floats,
)
from emu_perception.ros.pipeline import Pipeline
from emu_perception.ros.statistics import Statistics
from emu_perception.ros.stream import CameraStream
from emu_perception.ros.worker import Worker
from emu_perception.text import one_line

if TYPE_CHECKING:
    from emu_perception.inference.predictor import Predictor

NODE_NAME = "emu_perception"
CLASS_NAMES = "class_names"
DIAGNOSTICS_PERIOD = 1.0
STOP_SECONDS = 1.0
"""For the inference that runs when the node is deactivated; compiling takes longer."""


def _free(predictor: Predictor, after: threading.Thread) -> None:
    """Release a model and its memory once the thread that uses it has ended."""
    after.join()
    predictor.close()
    del predictor
    gc.collect()


class EmuNode(LifecycleNodeMixin, Node):
    """Subscribes to a camera and publishes the predictions of a model.

    Unconfigured, it only reports diagnostics. Configuring loads the model, activating begins to
    listen as soon as somebody subscribes to an output.

    Raises:
        ParameterError: a parameter given at the start cannot be used.
    """

    def __init__(self, **arguments: Any) -> None:
        Node.__init__(self, NODE_NAME, **arguments)
        self.autostart: threading.Thread | None = None
        """Configures and activates the node at its start."""
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
        self._heights: Heights | None = None
        self._streams: list[CameraStream] = []
        self._worker: Worker | None = None
        self._left_behind: threading.Thread | None = None
        """An inference that still compiles although the node was deactivated."""

        try:
            self._settings = declare_parameters(self)
        except ParameterError:
            self.destroy_node()
            raise
        unknown = describe_unknown(self)
        if unknown:
            self.get_logger().warning(unknown)
        self.add_on_set_parameters_callback(self._check_change)
        self.add_post_set_parameters_callback(self._take_settings)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        # The node's own clock stands still when a looping bag jumps back in time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._tick, clock=steady)
        if self._settings.autostart:
            # Once the executor spins, so that the node answers meanwhile. Not in the callback:
            # until it returns, its timer keeps the participant alive behind the node's end.
            self._start_timer = self.create_timer(0.0, self._begin_autostart, clock=steady)

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        return self._state

    @property
    def statistics(self) -> Statistics:
        """Counters of a node with one camera."""
        return self._statistics

    # Lifecycle transitions: an exception in one would vanish, so they are caught and logged.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, announce the topics."""

        def configure() -> None:
            self._predictor = load_predictor(self._settings, self.get_logger())
            self._heights = Heights(self, self._settings.height_frame)
            for name in self._settings.camera_names:
                self._streams.append(self._make_stream(name))
            self._publish_class_names()

        self._state = "configuring"
        if not self._succeeds("configure", configure):
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to answer."""
        # Before anything is published: a publisher drops what it gets while it is inactive.
        result = super().on_activate(state)

        def activate() -> None:
            self._worker = Worker(after=self._left_behind)
            self._state = "active"
            self._publish_label_info()
            self._listen_if_wanted()
            if not any(stream.source.is_open for stream in self._streams):
                self.get_logger().info("active; idle until an output has a subscriber")

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
        """Set parameters as rclpy does, which also serves the services; count refusals."""
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

    @property
    def is_computing(self) -> bool:
        """Whether an inference that was left behind still runs."""
        return self._left_behind is not None and self._left_behind.is_alive()

    def destroy_node(self) -> None:
        """Stop the worker, free the model, destroy the node."""
        self._stop()
        if self._predictor is not None and not self.is_computing:
            self._predictor.close()
        super().destroy_node()

    def abandon(self) -> None:
        """Take the node off the graph while a transition still runs; only for a process's end."""
        Node.destroy_node(self)
        self._state_machine.destroy_when_not_in_use()

    def _begin_autostart(self) -> None:
        self.destroy_timer(self._start_timer)
        self.autostart = threading.Thread(target=self._autostart, name="autostart", daemon=True)
        self.autostart.start()

    def _autostart(self) -> None:
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _make_stream(self, name: str) -> CameraStream:
        assert self._predictor is not None and self._heights is not None
        # The only camera's statistics are the node's.
        statistics = Statistics() if name else self._statistics
        return CameraStream(
            self,
            name,
            self._predictor,
            self._heights,
            statistics,
            lambda: self._settings,
            lambda kind, message: self._report(kind, message, statistics),
            self._listen_if_wanted,
            self._offer,
        )

    def _offer(self, pipeline: Pipeline, frame: Frame) -> None:
        worker = self._worker
        if worker is None:
            pipeline.unwanted()
        else:
            worker.offer(pipeline, frame)

    def _succeeds(self, transition: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except InputError as error:
            self._failure = one_line(f"{transition} failed: {error}")
            self._report(error.kind, self._failure)
            return False
        except Exception as error:
            if not self.context.ok():  # ended by a signal: no failure of the transition
                return False
            self._failure = one_line(f"{transition} failed: {type(error).__name__}: {error}")
            self.get_logger().error(self._failure)
            return False
        self._failure = ""
        return True

    def _stop(self) -> None:
        with self._listening:
            self._state = "inactive"
            for stream in self._streams:
                stream.close()
        if self._worker is not None:
            self._left_behind = self._worker.stop(STOP_SECONDS)
            self._worker = None

    def _release(self) -> None:
        self._stop()
        self._state = "unconfigured"
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.destroy()
        if self._heights is not None:
            self._heights.destroy()
            self._heights = None
        predictor, self._predictor = self._predictor, None
        if predictor is not None and self._left_behind is not None and self.is_computing:
            # Native code runs on: the model is freed when it returns.
            arguments = predictor, self._left_behind
            threading.Thread(target=_free, args=arguments, name="free", daemon=True).start()
        elif predictor is not None:
            predictor.close()
        del predictor
        gc.collect()

    def _listen_if_wanted(self) -> None:
        """Subscribe to those cameras whose outputs have subscribers."""
        with self._listening:
            if self._state == "active":
                for stream in self._streams:
                    stream.listen_if_wanted()

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
        if self._predictor is None or self._predictor.label_set is None:
            return
        header = Header(stamp=self.get_clock().now().to_msg())
        classes, threshold = self._predictor.label_set, self._settings.min_confidence
        for stream in self._streams:
            if stream.outputs.has_label_info:
                message = label_info_message(header, classes, threshold)
                stream.outputs.publish_label_info(message)

    def _report(self, kind: BadInput, message: str, statistics: Statistics | None = None) -> None:
        if not self.context.ok():  # ended by a signal: what cannot be published is no fault
            return
        line = (statistics or self._statistics).bad(kind, message)
        if line is not None:
            self.get_logger().error(line)

    def _describe(self, stream: CameraStream | None) -> NodeState:
        """For diagnostics of a camera, or of the node alone."""
        predictor, name = self._predictor, self.get_fully_qualified_name()
        state = NodeState(name=name, lifecycle=self._state, failure=self._failure)
        if predictor is None:
            return state
        state = replace(
            state,
            cameras=tuple(s.name for s in self._streams if s.name),
            model=predictor.path.name,
            device=f"{predictor.device} ({predictor.engine})",
            precision=predictor.precision,
        )
        if stream is None:
            return state
        source = stream.source
        return replace(
            state,
            name=f"{name}: {stream.name}" if stream.name else name,
            cameras=(),
            input_topic=source.topic,
            input_publishers=self.count_publishers(source.topic),
            input_problem=stream.find_transport_problem(),
        )

    def _tick(self) -> None:
        self._listen_if_wanted()
        streams = list(self._streams)
        message = DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()))
        settings = self._settings
        for stream in streams:
            counts = stream.statistics.snapshot(settings.statistics_seconds)
            message.status.append(diagnose(self._describe(stream), counts, settings))
        if not (streams and streams[0].statistics is self._statistics):
            counts = self._statistics.snapshot(settings.statistics_seconds)
            message.status.append(diagnose(self._describe(None), counts, settings))
        self._diagnostics.publish(message)
