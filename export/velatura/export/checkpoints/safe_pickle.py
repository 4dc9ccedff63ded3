"""Pickles of StyleGAN2-ADA-PyTorch, read as data.

Such a file carries the source code of its networks, which the official loader runs. Here the
reconstructor makes a `Record` of the class's name and the module's attributes; the code is a string
like any other and is dropped.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from velatura.export.checkpoints.inert import Function, Record, RefusedPickleError
from velatura.export.checkpoints.pickle_machine import Budget, Limits, Machine, require_modest
from velatura.export.checkpoints.torch_values import data_globals, load_from_bytes
from velatura.export.errors import CheckpointError


def load_pickle(path: Path, limits: Limits | None = None) -> object:
    """Dictionaries, lists, names, numbers, `Record`s and `StoredTensor`s; tensors stay in the file.

    Raises RefusedPickleError, which names the first global or limit in the way; nothing has run.
    """
    limits = limits or Limits()
    budget = Budget(limits)
    data = map_file(path, limits)
    allowed = {
        **data_globals(budget),
        "dnnlib.util.EasyDict": Function("EasyDict", _easy_dictionary),
        "torch.storage._load_from_bytes": load_from_bytes(budget),
        "torch_utils.persistence._reconstruct_persistent_obj": Function(
            "_reconstruct_persistent_obj", _persistent
        ),
    }
    try:
        root = Machine(data, 0, allowed, budget).run()
        require_modest(root, limits)
        budget.require_backed()
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path}: {error}") from None
    return root


def map_file(path: Path, limits: Limits) -> memoryview:
    """The file's bytes, paged in as they are read. Raises CheckpointError naming file and limit."""
    try:
        size = path.stat().st_size
        if size > limits.file_bytes:
            raise RefusedPickleError(f"{path}: has {size} bytes, the limit is {limits.file_bytes}")
        if size == 0:
            raise CheckpointError(f"{path}: is empty")
        with path.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a checkpoint's file") from error


def _easy_dictionary(arguments: tuple[object, ...]) -> dict[str, object]:
    match arguments:
        case ():
            return {}
        case (dict(entries),):
            return dict(entries)
    raise RefusedPickleError("an EasyDict is given something else than a dictionary")


def _persistent(arguments: tuple[object, ...]) -> Record:
    match arguments:
        case ({"type": "class", "class_name": str(name), "state": dict(state)},):
            return Record(name, dict(state))
    raise RefusedPickleError("a persistent object lacks its class_name or state")
