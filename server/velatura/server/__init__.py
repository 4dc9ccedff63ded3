"""The Velatura service: gRPC in, onnxruntime underneath."""

import os
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("velatura-server")
except PackageNotFoundError:  # run from a folder without installing
    __version__ = "0+unknown"

# numpy's BLAS would start a thread for each CPU, and they wait for each other spinning: beside
# other work, a label map of 128 pixels took 314 ms instead of 2. Pixels have a pool of their own,
# and onnxruntime does not use BLAS. OpenBLAS reads this when numpy is first imported: hence here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
