"""What a foreign pickle becomes here: plain data that has no behaviour of the file's choosing.

A module turns into a `Record` of its class's name and its attributes, a tensor into a
`StoredTensor` that knows where its numbers are; they are read only when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from velatura.export.errors import CheckpointError


class RefusedPickleError(CheckpointError):
    """A file that asks for more than data, or for more of it than is reasonable."""


@dataclass
class Record:
    """An object of a class that is never imported: its name, and its attributes."""

    class_name: str
    fields: dict[str, object] = field(default_factory=dict)


@dataclass
class NumpyType:
    """What `numpy.dtype('f8')` would be, as far as a scalar needs it."""

    code: str


@dataclass(frozen=True)
class StorageType:
    """`torch.FloatStorage` and its like, by what they hold."""

    dtype: torch.dtype


@dataclass
class Storage:
    """`numel` numbers of one type in the file; `read` gives exactly their bytes."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes | memoryview] | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage, checked to lie inside it and to repeat none of its numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """The numbers, contiguous, in the file's own type and this tensor's memory."""
        if 0 in self.shape:
            return torch.zeros(self.shape, dtype=self.storage.dtype)
        if self.storage.read is None:
            raise RefusedPickleError("a tensor's storage is not in the file")
        flat = torch.frombuffer(bytearray(self.storage.read()), dtype=self.storage.dtype)
        view = flat.as_strided(self.shape, self.stride, self.offset)
        return view.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Function:
    """A global that may be called; `call` takes the pickled arguments and only makes data."""

    name: str
    call: Callable[[tuple[object, ...]], object]
