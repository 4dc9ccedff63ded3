"""The Velatura service: gRPC in, onnxruntime underneath."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("velatura-server")
except PackageNotFoundError:  # run from a folder without installing
    __version__ = "0+unknown"
