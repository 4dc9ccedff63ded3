"""What torch.save writes (`.pt`, `.pth`): zip archives since torch 1.6, and the older form."""

from __future__ import annotations

import zipfile
from pathlib import Path

from velatura.export.checkpoints.inert import RefusedPickleError, Storage
from velatura.export.checkpoints.pickle_machine import Budget, Limits, Machine, require_modest
from velatura.export.checkpoints.safe_pickle import map_file
from velatura.export.checkpoints.torch_values import (
    LEGACY_START,
    STORAGE_TYPES,
    data_globals,
    namespace,
    read_legacy,
    storage_of,
)

_PICKLE_LIMIT = 64 * 2**20  # bytes of the description; the tensors are beside it
_ENTRIES = 20_000


def load_archive(path: Path, limits: Limits | None = None) -> object:
    """Dictionaries, lists, names, numbers and `StoredTensor`s, as in `safe_pickle.load_pickle`."""
    limits = limits or Limits()
    budget = Budget(limits)
    data = map_file(path, limits)
    allowed = {**data_globals(budget), "argparse.Namespace": namespace()}
    try:
        if is_zip(data):
            root = _read_zip(path, len(data), allowed, budget)
        else:
            root, _ = read_legacy(data, allowed, budget)
        require_modest(root, limits)
        budget.require_backed()
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path}: {error}") from None
    return root


def is_archive(data: memoryview) -> bool:
    """Whether torch.save wrote these bytes, in either form."""
    return is_zip(data) or bytes(data[: len(LEGACY_START)]) == LEGACY_START


def is_zip(data: memoryview) -> bool:
    return bytes(data[:4]) == b"PK\x03\x04"


def _read_zip(path: Path, file_bytes: int, allowed: dict[str, object], budget: Budget) -> object:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise RefusedPickleError(f"not a whole zip archive: {error}") from None
    entries = {info.filename: info for info in archive.infolist()}
    _require_stored(entries, file_bytes)
    names = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise RefusedPickleError("the archive has no data.pkl, so torch.save did not write it")
    prefix = names[0].removesuffix("data.pkl")
    byteorder = entries.get(f"{prefix}byteorder")
    if byteorder and _record(archive, byteorder) != b"little":
        raise RefusedPickleError("the tensors were not written on a little-endian machine")
    if entries[names[0]].file_size > _PICKLE_LIMIT:
        raise RefusedPickleError(f"data.pkl has more than {_PICKLE_LIMIT} bytes")
    storages: dict[str, Storage] = {}

    def find_storage(identifier: object) -> Storage:
        key, storage = storage_of(identifier)
        info = entries.get(f"{prefix}data/{key}")
        if info is None or info.file_size != storage.nbytes:
            raise RefusedPickleError(
                f"the archive has no record {key[:40]!r} of {storage.nbytes} bytes"
            )
        if key not in storages:
            budget.stored_elements += storage.numel
            storage.read = lambda: _record(archive, info)
            storages[key] = storage
        elif storages[key].dtype != storage.dtype:
            raise RefusedPickleError(f"record {key[:40]!r} is referred to in two types")
        return storages[key]

    pickle = memoryview(_record(archive, entries[names[0]]))
    return Machine(pickle, 0, {**STORAGE_TYPES, **allowed}, budget, find_storage).run()


def _require_stored(entries: dict[str, zipfile.ZipInfo], file_bytes: int) -> None:
    """torch.save compresses nothing; what is compressed or overlaps could unfold without end."""
    if len(entries) > _ENTRIES:
        raise RefusedPickleError(f"the archive has more than {_ENTRIES} records")
    for info in entries.values():
        if info.compress_type != zipfile.ZIP_STORED:
            raise RefusedPickleError(
                f"record {info.filename[:80]!r} is compressed, which torch.save does not do"
            )
    if sum(info.file_size for info in entries.values()) > file_bytes:
        raise RefusedPickleError("the archive's records are together larger than the file")


def _record(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        raise RefusedPickleError(f"record {info.filename[:80]!r} is damaged: {error}") from None
