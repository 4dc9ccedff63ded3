"""OpenVINO as a provider of the ordinary onnxruntime, for Intel CPUs: the plugin and its options.

The plugin is a wheel of its own that onnxruntime is told to load; sessions then ask for one of its
devices instead of naming a provider. Of its devices only the CPU is taken, which is why everything
else in the engine treats OpenVINO as it treats the CPU.
"""

from __future__ import annotations

import importlib
import json
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from velatura.server.engine.cpu_budget import cpu_budget

OPENVINO = "OpenVINOExecutionProvider"
PLUGIN_COMMAND = 'pip install "velatura-server[cpu,openvino]"'

# Compiled kernels that a session keeps. The default of 5000 keeps those of hundreds of picture
# sizes, hundreds of MiB for one style network.
KEPT_KERNELS = 256
# Items with more elements than this (a picture of 816 × 816) are not for OpenVINO: each stream
# keeps the activations of the largest run it ever made, 100 to 300 bytes an element of a style
# network, and nothing makes it give them back.
LARGEST_ITEM_ELEMENTS = 2_000_000

_MODULE = "onnxruntime_ep_openvino"
_NAME = "velatura-openvino"  # that the library is registered under

_registering = threading.Lock()
_registered: set[str] = set()


class Precision(StrEnum):
    """What OpenVINO computes in; tensors that go in and come out stay as they are."""

    F32 = "f32"
    BF16 = "bf16"


class NoOpenvino(Exception):  # noqa: N818 - says what is wrong, and what to do
    """OpenVINO cannot be used; `installed` says whether its plugin is there at all."""

    def __init__(self, message: str, *, installed: bool) -> None:
        self.installed = installed
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class OpenvinoOptions:
    """`instances` as set by the operator, 0 for as many runs at a time as the CPUs allow."""

    precision: Precision = Precision.F32
    instances: int = 0

    def load_config(self, threads: int) -> str:
        """OpenVINO's properties as JSON, for a session whose runs use `threads` threads each.

        Runs of one session wait for each other unless there is a stream for each of them.
        """
        streams = self.instances or max(1, cpu_budget() // threads)
        properties = {
            "INFERENCE_PRECISION_HINT": self.precision.value,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,  # of all streams together
            # Sessions do not know of each other: pinned, they would take the same cores.
            "ENABLE_CPU_PINNING": False,
            # `threads` counts logical CPUs, as everywhere else in the engine.
            "ENABLE_HYPER_THREADING": True,
            "CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS,
        }
        return json.dumps({"CPU": properties})

    def join(self, session_options: Any, ort: Any, threads: int) -> None:
        """Let a session that is opened with `session_options` run on OpenVINO. Raises
        NoOpenvino.
        """
        config = {"load_config": self.load_config(threads)}
        session_options.add_provider_for_devices([cpu_device(ort)], config)
        # Without it a session names the provider even where it runs none of the nodes.
        session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def cpu_device(ort: Any) -> Any:
    """OpenVINO's CPU among onnxruntime's devices, where `ort` is the module; loads the plugin at
    the first call. Raises NoOpenvino.
    """
    with _registering:
        if _NAME not in _registered:
            _register(ort)
            _registered.add(_NAME)
    for device in ort.get_ep_devices():
        if device.ep_name == OPENVINO and device.ep_metadata.get("ov_device") == "CPU":
            return device
    raise NoOpenvino("OpenVINO knows no CPU on this machine.", installed=True)


def computes_in(device: Any, precision: Precision) -> bool:
    """Whether this CPU has instructions for `precision`."""
    if precision is Precision.F32:
        return True
    capabilities = str(device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", ""))
    return precision.value.upper() in capabilities.split()


def used_providers(session: Any) -> list[str]:
    """The providers that really run nodes of `session`, OpenVINO first if it is among them; those
    that it was opened with where no node is left to run, or where this onnxruntime does not tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return list(session.get_providers())
    running = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    return [name for name in session.get_providers() if name in running or not running]


def _register(ort: Any) -> None:
    if not hasattr(ort, "register_execution_provider_library"):
        raise NoOpenvino(
            f"onnxruntime {ort.__version__} takes no plugins. Install a later one: "
            f"`{PLUGIN_COMMAND} --upgrade`.",
            installed=False,
        )
    try:
        plugin = importlib.import_module(_MODULE)
    except ImportError:
        raise NoOpenvino(
            f"its plugin is not installed: `{PLUGIN_COMMAND}` (x86-64, Linux or Windows).",
            installed=False,
        ) from None
    try:
        ort.register_execution_provider_library(_NAME, plugin.get_library_path())
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise NoOpenvino(
            f"its plugin does not load ({error}). Install it again, with the onnxruntime that it "
            f"is for: `{PLUGIN_COMMAND} --upgrade`.",
            installed=True,
        ) from error
