"""Child processes with a ROS environment of their own, ended whatever happens."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from emu_perception.resources import find_resource
from emu_perception.transport import PROFILE_VARIABLE, choose_profile, free_bytes

GRACE_SECONDS = 10.0
"""For a process to end after SIGINT before it is killed."""


class ProcessError(RuntimeError):
    """Child processes failed; the message names the step and shows the end of the log."""


def require_ros() -> None:
    """Raise a `ProcessError` if rclpy cannot be found."""
    if importlib.util.find_spec("rclpy") is None:
        raise ProcessError(
            "ROS 2 is missing: source a ROS 2 installation, or install the package with its "
            "extra `ros`"
        )


def ros_environment() -> dict[str, str]:
    """Variables that keep DDS on this machine, in a domain that no other process here uses."""
    environment = dict(os.environ)
    for name in ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_NAMESPACE"):
        environment.pop(name, None)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with claim_domain() as domain:
        environment["ROS_DOMAIN_ID"] = str(domain)
    profile = find_resource("config", "node", choose_profile(free_bytes())[0])
    environment[PROFILE_VARIABLE] = str(profile)
    environment.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    return environment


@contextmanager
def claim_domain() -> Iterator[int]:
    """A ROS domain in which no participant is; meanwhile no other process claims it.

    Raises:
        ProcessError: there is none.
    """
    # Up to 101 a domain's ports stay below Linux's ephemeral ones.
    domains = list(range(1, 102))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        with ExitStack() as stack:
            name = Path(tempfile.gettempdir()) / f"emu_domain_{domain}_{os.getuid()}.lock"
            lock = stack.enter_context(name.open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # claimed
            if _has_participant(domain):
                continue
            yield domain
            return
    raise ProcessError("every ROS domain of this machine is in use")


def _has_participant(domain: int) -> bool:
    """Whether the port of a domain's first participant is taken (DDSI-RTPS 9.6.1.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", 7410 + 250 * domain))
        except OSError:
            return True
        return False


class Child:
    """A Python module run as a process; its JSON lines on standard output become events."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        log: Path,
        *,
        events: bool = False,
    ) -> None:
        """Args:
        log: file that takes standard error, and standard output unless that is for events.
        events: whether standard output carries events.
        """
        self.name = name
        self.log = log
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log_file = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if events else self._log_file,
            stderr=self._log_file,
            # Ctrl-C in the terminal goes to the parent alone, which ends its children in order.
            start_new_session=True,
            preexec_fn=_die_with_parent if _LIBC is not None else None,
        )
        self._reader: threading.Thread | None = None
        if self.process.stdout is not None:
            self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
            self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                self._log_file.write(line)
                continue
            self.events.put(event)

    def new_events(self) -> Iterator[dict[str, Any]]:
        """Events since the last call."""
        while True:
            try:
                yield self.events.get_nowait()
            except queue.Empty:
                return

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def stop(self) -> int:
        """End the process: ask first, then kill. Returns its exit status."""
        for request in (signal.SIGINT, signal.SIGTERM):
            if self.process.poll() is not None:
                break
            self.process.send_signal(request)
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        if self.process.poll() is None:
            self.process.kill()
        status = self.process.wait()
        if self._reader is not None:
            self._reader.join()
        self._log_file.close()
        return status

    def failure(self, what: str) -> ProcessError:
        """An error that shows the end of this process's log."""
        return ProcessError(f"{what}\n\nThe end of {self.log}:\n{tail(self.log)}")


class Children:
    """Processes that are all ended when the `with` block is left, the youngest first."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self._environment = environment
        self._logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Children:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def start(
        self, name: str, module: str, arguments: Sequence[str], *, events: bool = False
    ) -> Child:
        """Run `python -m module arguments`; its log is `<name>.log`."""
        log = self._logs / f"{name}.log"
        child = Child(name, module, arguments, self._environment, log, events=events)
        self._children.append(child)
        return child

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self._children):
            child.stop()


@contextmanager
def terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that `with` blocks clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {s: signal.signal(s, leave) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ros_arguments(
    parameters: Mapping[str, object], remappings: Mapping[str, str] | None = None
) -> list[str]:
    """Parameters and remapped names of a node, for its command line."""
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        # Values are YAML: a quoted string keeps a path with blanks or colons in one piece.
        if isinstance(value, bool | list):
            text = json.dumps(value)
        else:
            text = "'{}'".format(str(value).replace("'", "''"))
        arguments += ["-p", f"{name}:={text}"]
    for source, target in (remappings or {}).items():
        arguments += ["-r", f"{source}:={target}"]
    return arguments


def require_running(*children: Child) -> None:
    """Raises `ProcessError` with the log of the first that has ended."""
    for child in children:
        if not child.running:
            raise child.failure(
                f"The {child.name} process ended early with status {child.process.returncode}."
            )


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(text[-lines:]) or "(empty)"


# Loaded here because little is safe between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    # Not even a SIGKILL of the parent leaves a node behind.
    pr_set_pdeathsig = 1
    if _LIBC is not None:
        _LIBC.prctl(pr_set_pdeathsig, signal.SIGTERM)
