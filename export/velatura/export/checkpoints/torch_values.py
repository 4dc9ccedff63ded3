"""The globals that stand for tensors, dictionaries and numbers in the pickles of torch."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import torch

from velatura.export.checkpoints.inert import (
    Function,
    NumpyType,
    Record,
    RefusedPickleError,
    Storage,
    StorageType,
    StoredTensor,
)
from velatura.export.checkpoints.pickle_machine import Budget, Machine

STORAGE_TYPES: Mapping[str, StorageType] = {
    f"torch.{name}Storage": StorageType(dtype)
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}
_MAGIC = 0x1950A86A20F9469CFC6C  # starts what torch.save writes outside of zip archives
_LEGACY_VERSION = 1001
LEGACY_START = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")  # as a pickle
_AXES = 8


def data_globals(budget: Budget) -> dict[str, object]:
    """Globals by dotted name: dictionaries, sets, tensors, and numpy's numbers."""
    return {
        "collections.OrderedDict": Function("OrderedDict", _dictionary),
        # Before protocol 4 there is no opcode for sets; a module keeps one of its buffers' names.
        "builtins.set": Function("set", _set),
        "__builtin__.set": Function("set", _set),
        "torch._utils._rebuild_tensor_v2": Function("_rebuild_tensor_v2", _tensor(budget)),
        "torch._utils._rebuild_parameter": Function("_rebuild_parameter", _parameter),
        # Before protocol 3 there is no opcode for bytes; numpy's numbers are kept as such.
        "_codecs.encode": Function("_codecs.encode", _bytes),
        "numpy.dtype": Function("numpy.dtype", _numpy_type),
        "numpy.core.multiarray.scalar": Function("numpy scalar", _numpy_scalar),
        "numpy._core.multiarray.scalar": Function("numpy scalar", _numpy_scalar),
    }


def read_legacy(
    data: memoryview, allowed: Mapping[str, object], budget: Budget
) -> tuple[object, int]:
    """What torch.save wrote before (and, into pickles, still writes beside) its zip archives.

    Five pickles (magic number, version, machine, value, keys), then every storage as its length
    and raw numbers. Returns the value, whose storages refer to `data`, and the position after it.
    """
    storages: dict[str, Storage] = {}
    position = 0

    def run(
        known: Mapping[str, object], persistent: Callable[[object], object] | None = None
    ) -> object:
        nonlocal position
        machine = Machine(data, position, known, budget, persistent)
        value = machine.run()
        position = machine.position
        return value

    def find_storage(identifier: object) -> Storage:
        key, storage = storage_of(identifier)
        known = storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise RefusedPickleError(f"storage {key[:40]!r} is referred to in two types or lengths")
        return known

    if run({}) != _MAGIC or run({}) != _LEGACY_VERSION:
        raise RefusedPickleError("the bytes do not start as torch.save's do")
    machine_info = run({})
    if not isinstance(machine_info, dict) or machine_info.get("little_endian") is not True:
        raise RefusedPickleError("the tensors were not written on a little-endian machine")
    value = run({**STORAGE_TYPES, **allowed}, find_storage)
    keys = run({})
    if not isinstance(keys, list) or any(not isinstance(k, str) for k in keys):
        raise RefusedPickleError("the list of storages is not a list of names")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise RefusedPickleError("the list of storages does not name those that the tensors need")
    for key in keys:
        position = _attach(storages[key], data, position, budget)
    return value, position


def storage_of(identifier: object) -> tuple[str, Storage]:
    """torch's persistent identifier → key and a storage that knows no bytes yet."""
    match identifier:
        case ("storage", StorageType(dtype), str(key), str(), int(numel)) if numel >= 0:
            return key, Storage(dtype, numel)
        case ("storage", StorageType(dtype), str(key), str(), int(numel), None) if numel >= 0:
            return key, Storage(dtype, numel)
    raise RefusedPickleError("a persistent identifier is not that of a storage")


def _attach(storage: Storage, data: memoryview, position: int, budget: Budget) -> int:
    start = position + 8
    end = start + storage.nbytes
    if end > len(data):
        raise RefusedPickleError(
            f"a storage of {storage.nbytes} bytes is longer than what is left of the file"
        )
    if int.from_bytes(data[position:start], "little", signed=True) != storage.numel:
        raise RefusedPickleError("a storage's length differs from the one that its tensors expect")
    budget.stored_elements += storage.numel
    storage.read = lambda: data[start:end]
    return end


def load_from_bytes(budget: Budget) -> Function:
    """`torch.storage._load_from_bytes`: a whole torch.save of one storage, inside a pickle."""

    def call(arguments: tuple[object, ...]) -> Storage:
        match arguments:
            case (memoryview() as payload,):
                value, end = read_legacy(payload, {}, budget)
                if isinstance(value, Storage) and end == len(payload):
                    return value
        raise RefusedPickleError("_load_from_bytes was not given the bytes of one storage")

    return Function("_load_from_bytes", call)


def _tensor(budget: Budget) -> Callable[[tuple[object, ...]], StoredTensor]:
    def call(arguments: tuple[object, ...]) -> StoredTensor:
        match arguments:
            case (Storage() as storage, int(offset), tuple(size), tuple(stride), *_):
                shape, steps = _naturals(size), _naturals(stride)
            case _:
                raise RefusedPickleError(
                    "a tensor's arguments are not storage, offset, size, stride"
                )
        if len(shape) != len(steps) or len(shape) > _AXES or offset < 0:
            raise RefusedPickleError(f"a tensor has {len(shape)} extents and {len(steps)} strides")
        numel, last = 1, offset
        for extent, step in zip(shape, steps, strict=True):
            numel *= extent
            last += (extent - 1) * step
        if numel and (last >= storage.numel or numel > storage.numel):
            raise RefusedPickleError(
                f"a tensor of shape {list(shape)} does not lie within its {storage.numel} numbers"
            )
        budget.viewed_elements += numel
        return StoredTensor(storage, offset, shape, steps)

    return call


def _naturals(values: tuple[object, ...]) -> tuple[int, ...]:
    numbers = tuple(v for v in values if isinstance(v, int) and 0 <= v < 2**31)
    if len(numbers) != len(values):
        raise RefusedPickleError("a tensor's size or stride is not of natural numbers")
    return numbers


def _parameter(arguments: tuple[object, ...]) -> StoredTensor:
    match arguments:
        case (StoredTensor() as data, bool(), dict()):
            return data
    raise RefusedPickleError("a parameter's arguments are not tensor, requires_grad and hooks")


def _dictionary(arguments: tuple[object, ...]) -> dict[str, object]:
    if arguments:
        raise RefusedPickleError("a dictionary is given arguments instead of entries")
    return {}


def _set(arguments: tuple[object, ...]) -> set[str]:
    match arguments:
        case (list(names),):
            members = {name for name in names if isinstance(name, str)}
            if len(members) == len(names):
                return members
    raise RefusedPickleError("a set is made of something else than names")


def _bytes(arguments: tuple[object, ...]) -> memoryview:
    match arguments:
        case (str(text), "latin1"):
            try:
                return memoryview(text.encode("latin1"))
            except UnicodeEncodeError:
                raise RefusedPickleError("bytes are given as characters beyond 255") from None
    raise RefusedPickleError("_codecs.encode is used for something else than bytes")


def _numpy_type(arguments: tuple[object, ...]) -> NumpyType:
    match arguments:
        case (str(code), *_) if code in _SCALARS:
            return NumpyType(code)
    raise RefusedPickleError(f"a numpy type other than {', '.join(_SCALARS)}")


def _numpy_scalar(arguments: tuple[object, ...]) -> float | int | bool:
    match arguments:
        case (NumpyType(code), memoryview() as payload):
            layout = _SCALARS[code]
            if len(payload) == struct.calcsize(layout):
                value: float | int | bool = struct.unpack(layout, payload)[0]
                return value
    raise RefusedPickleError("a numpy scalar's arguments are not a type and its bytes")


def namespace() -> Function:
    """`argparse.Namespace`: the options of the training script."""

    def call(arguments: tuple[object, ...]) -> Record:
        if arguments:
            raise RefusedPickleError("a Namespace is given arguments")
        return Record("argparse.Namespace")

    return Function("argparse.Namespace", call)
