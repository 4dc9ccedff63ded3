"""Arrays from `.npy`, `.npz` and `.pt` files, bounded by the file's size and never unpickled."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from velatura.export.checkpoints.inert import StoredTensor
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.directions.entries import FloatArray
from velatura.export.errors import CheckpointError

_LIMIT = 512 * 2**20  # bytes of one array; GANSpace's largest have 170 MB
_HEADER = 10_000


def read_npy(path: Path) -> FloatArray:
    """The one array of a `.npy` file. Raises CheckpointError naming the file."""
    try:
        if path.stat().st_size > _LIMIT:
            raise CheckpointError(f"{path}: has more than {_LIMIT} bytes")
        return _array(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a .npy file") from error


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """The named arrays of a `.npz` file, which may be compressed. Raises as `read_npy`."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    raise CheckpointError(f"{path}: has no array {name}; found {_found(archive)}")
                with archive.open(f"{name}.npy") as stream:
                    data = stream.read(_LIMIT + 1)  # what the archive says of sizes may be untrue
                if len(data) > _LIMIT:
                    raise CheckpointError(f"{path}: {name} unfolds to more than {_LIMIT} bytes")
                arrays[name] = _array(data, f"{path}: {name}")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a .npz file") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a whole .npz file: {error}") from error
    return arrays


def npz_names(path: Path) -> list[str]:
    """What the arrays of a `.npz` file are called, in its order. Raises as `read_npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a .npz file") from error
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a whole .npz file: {error}") from error


def read_tensor(path: Path) -> FloatArray:
    """The one tensor of a `.pt` file."""
    value = load_archive(path)
    if not isinstance(value, StoredTensor):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}; expected one tensor")
    return to_array(value)


def read_tensors(path: Path, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """The named tensors of a `.pt` file that holds a dictionary."""
    values = load_archive(path)
    found = values if isinstance(values, dict) else {}
    arrays = {}
    for name in names:
        value = found.get(name)
        if not isinstance(value, StoredTensor):
            raise CheckpointError(
                f"{path}: has no tensor {name!r}; found {sorted(map(str, found))[:20]}"
            )
        arrays[name] = to_array(value)
    return arrays


def to_array(value: StoredTensor) -> FloatArray:
    """[…] in float64."""
    array: FloatArray = value.tensor().double().numpy()
    return array


def _found(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()[:20]]


def _array(data: bytes, where: str) -> FloatArray:
    """numpy allocates what a header asks for before it reads; so the header is checked first."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream, max_header_size=_HEADER)
    except Exception as error:  # numpy parses the header as Python's literals: many kinds
        raise CheckpointError(f"{where}: not an array of numpy: {error}") from error
    if dtype.kind != "f":
        raise CheckpointError(
            f"{where}: holds {dtype}, expected floating-point numbers; pickled objects are not read"
        )
    body = memoryview(data)[stream.tell() :]
    count = 1
    for extent in shape:
        count *= extent
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(body):
        raise CheckpointError(
            f"{where}: shape {list(shape)} needs {count * dtype.itemsize} bytes, {len(body)} follow"
        )
    flat = np.frombuffer(body, dtype).astype(np.float64)
    return flat.reshape(shape, order="F" if fortran else "C")
