"""Hostile pickles are refused by name, at once and in little memory, and nothing in them runs."""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from velatura.export.checkpoints.inert import Record, RefusedPickleError, StoredTensor
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.safe_pickle import load_pickle
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.errors import CheckpointError

from . import ada_snapshots

SECONDS, BYTES = 1.0, 200 * 2**20


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def doubling(levels: int, *, lists: bool) -> bytes:
    """Containers that hold the one before twice: 2^levels elements in a few bytes."""
    if lists:
        return b"\x80\x04]" + b"q\x00]h\x00ah\x00a" * levels + b"."
    return b"\x80\x04)" + b"q\x00h\x00\x86" * levels + b"."


def tuple_key(levels: int) -> bytes:
    """A dictionary with such a tuple as its key, which takes for ever to hash."""
    return b"\x80\x04})" + b"q\x00h\x00\x86" * levels + b"Ns."


def marker(tmp_path: Path) -> str:
    return f"touch {tmp_path / 'executed'}"


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (
        lambda p: pickle.dumps(Calls(os.system, marker(p))),
        rf"global {os.system.__module__}\.system",
    ),
    "os.system, protocol 2": (
        lambda p: b"\x80\x02cos\nsystem\n" + unicode(marker(p)) + b"\x85R.",
        r"global os\.system",
    ),
    "os.system by a name kept in the memo": (
        lambda p: (
            b"\x80\x04"
            + unicode("system")
            + b"q\x00"
            + unicode("os")
            + b"h\x00\x93"
            + unicode(marker(p))
            + b"\x85R."
        ),
        r"global os\.system",
    ),
    "builtins.eval": (
        lambda p: pickle.dumps(Calls(builtins.eval, f"open({str(p / 'executed')!r}, 'w')")),
        r"global builtins\.eval",
    ),
    "a call below a wanted network": (
        lambda p: pickle.dumps({"G_ema": {"deep": [Calls(os.popen, marker(p))]}}),
        r"global os\.popen",
    ),
    "getattr": (lambda _: pickle.dumps(Calls(getattr, "x", "join")), r"global builtins\.getattr"),
    "an unexpected global": (
        lambda _: pickle.dumps(Calls(collections.Counter, "aab")),
        r"global collections\.Counter",
    ),
    "an attribute of an allowed global": (
        lambda _: b"\x80\x04" + unicode("collections") + unicode("OrderedDict.fromkeys") + b"\x93.",
        r"global collections\.OrderedDict\.fromkeys",
    ),
    "an extension code": (lambda _: b"\x80\x02\x82\x01.", "opcode EXT1"),
    "an instance of protocol 0": (lambda _: b"(S'x'\nios\nsystem\n.", "opcode STRING"),
    "an instance's own class": (lambda _: b"(ios\nsystem\n.", "opcode INST"),
    "a persistent identifier": (lambda _: b"\x80\x02K\x01Q.", "a persistent identifier"),
    "an allocation by a reduce": (
        lambda _: pickle.dumps(Calls(bytearray, 10**11)),
        r"global builtins\.bytearray",
    ),
    "a call of a call of a call": (
        lambda _: b"\x80\x04ccollections\nOrderedDict\n" + b")R" * 10_000 + b".",
        "a call of a dict",
    ),
    "a reduce bomb": (
        lambda _: b"\x80\x04(" + b"ccollections\nOrderedDict\n)R" * 70_000 + b"l.",
        "more than 200000 opcodes",
    ),
    "a reduce bomb of storages": (lambda _: storage_bomb(), "more than 200000 opcodes"),
    "a million laughs": (
        lambda _: doubling(40, lists=True),
        "unfolds to more than 2000000 elements",
    ),
    "laughs in tuples": (
        lambda _: doubling(60, lists=False),
        "unfolds to more than 2000000 elements",
    ),
    "laughs as a key": (lambda _: tuple_key(60), "a key of type tuple"),
    "a list in itself": (lambda _: b"\x80\x04]q\x00h\x00a.", "contains itself"),
    "a deep nest": (lambda _: b"\x80\x04" + b")" + b"\x85" * 100_000 + b".", "more than 100 deep"),
    "a nest of marks": (lambda _: b"\x80\x04" + b"(" * 100_000, "more than 100 deep"),
    "an integer of a gigabyte": (
        lambda _: b"\x80\x04\x8b" + struct.pack("<i", 2**30) + b".",
        "opcode LONG4",
    ),
    "a string longer than the file": (
        lambda _: b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "strings have more than",
    ),
    "bytes longer than the file": (
        lambda _: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "a length of 1152921504606846976 bytes",
    ),
    "a name without end": (lambda _: b"\x80\x04c" + b"a" * 1_000_000, "a name of more than 256"),
    "a memo far out": (lambda _: b"\x80\x04j\xff\xff\xff\xff.", "a reference to 4294967295"),
    "an end too early": (lambda _: b"\x80\x04]", "a length of 1 bytes where only 0"),
    "an empty stack": (lambda _: b"\x80\x04R.", "an empty stack"),
    "a state for a list": (lambda _: b"\x80\x04]}b.", "a state for a list"),
    "a huge tensor of a small storage": (
        lambda _: tensor_pickle((2**20, 2**20), (0, 0)),
        "does not lie within its 4 numbers",
    ),
    "a tensor beyond its storage": (
        lambda _: tensor_pickle((2, 2), (2, 2)),
        "does not lie within its 4 numbers",
    ),
    "a tensor of negative size": (lambda _: tensor_pickle((-1,), (1,)), "natural numbers"),
    "one storage a thousand times": (lambda _: alias_bomb(), "four times as large as the file"),
    "a storage that claims a terabyte": (
        lambda _: tensor_pickle((2, 2), (2, 1), claimed=2**38),
        "longer than what is left of the file",
    ),
}


def storage(numel: int, claimed: int | None = None) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled tensors use what torch wants nobody else to
        typed = torch.zeros(numel).storage()
    torch.save(typed, stream, _use_new_zipfile_serialization=False)
    payload = stream.getvalue()
    if claimed is not None:
        # The storage's length, as one byte in the pickle of its identifier.
        old = b"K" + bytes([numel]) + b"N"
        assert payload.count(old) == 1
        payload = payload.replace(old, b"\x8a\x08" + struct.pack("<q", claimed) + b"N")
    return payload


def load_storage(payload: bytes) -> bytes:
    return (
        b"ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(payload))
        + payload
        + b"\x85R"
    )


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"


def tensor_pickle(
    size: tuple[int, ...], stride: tuple[int, ...], claimed: int | None = None
) -> bytes:
    return (
        b"\x80\x03ctorch._utils\n_rebuild_tensor_v2\n("
        + load_storage(storage(4, claimed))
        + b"K\x00"
        + numbers(size)
        + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def storage_bomb() -> bytes:
    """Every storage is a file of its own with fifty opcodes."""
    return b"\x80\x03](" + load_storage(storage(0)) * 20_000 + b"e."


def alias_bomb() -> bytes:
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(h\x01K\x00"
        + numbers((4,))
        + numbers((1,))
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x03](" + load_storage(storage(4)) + b"q\x01" + tensor * 1000 + b"e."


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    path = tmp_path / "network.pkl"
    path.write_bytes(make(tmp_path))
    tracemalloc.start()
    try:
        started = time.process_time()
        with pytest.raises(RefusedPickleError, match=message) as refusal:
            load_pickle(path)
        spent = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(refusal.value)
    assert not (tmp_path / "executed").exists()
    assert peak < BYTES
    # Tracing every allocation takes several times as long as the work itself.
    assert spent < 5 * SECONDS


WORST = (
    "os.system",
    "builtins.eval",
    "an unexpected global",
    "an allocation by a reduce",
    "a reduce bomb",
    "a reduce bomb of storages",
    "a million laughs",
    "laughs in tuples",
    "laughs as a key",
    "a deep nest",
)
_MEASURE = """
import resource, sys, time
from pathlib import Path
from velatura.export.checkpoints.inert import RefusedPickleError
from velatura.export.checkpoints.safe_pickle import load_pickle
from velatura.export.checkpoints.torch_archive import load_archive
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    started = time.process_time()
    try:
        (load_pickle if path.suffix == ".pkl" else load_archive)(path)
    except RefusedPickleError as error:
        refusal = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(time.process_time() - started, grown, refusal, sep="\\t")
"""


def as_archive(path: Path, pickle: bytes) -> Path:
    """The same pickle as the description of a `.pt` file, in torch.save's layout."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_the_worst_of_them_take_a_second_and_200_megabytes(tmp_path: Path, suffix: str) -> None:
    """In a process of its own, by the system's account of its memory."""
    paths, refusals = [], []
    for name in WORST:
        make, refusal = HOSTILE[name]
        pickle, path = make(tmp_path), tmp_path / f"{name}{suffix}"
        if suffix == ".pkl":
            path.write_bytes(pickle)
        else:
            as_archive(path, pickle)
            if "storages" in name:  # a global that only pickles may name
                refusal = r"global torch\.storage\._load_from_bytes"
        paths.append(path)
        refusals.append(refusal)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(WORST)
    for path, refusal, line in zip(paths, refusals, lines, strict=True):
        seconds, kilobytes, message = line.split("\t")
        assert float(seconds) < SECONDS, path
        assert int(kilobytes) * 1024 < BYTES, path
        assert message.startswith(f"{path}: ")
        assert re.search(refusal, message), message
    assert not (tmp_path / "executed").exists()


def test_a_file_above_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.pkl"
    with path.open("wb") as stream:
        stream.truncate(3 * 2**30)  # a hole: takes no room
    with pytest.raises(RefusedPickleError, match="has 3221225472 bytes, the limit is 2147483648"):
        load_pickle(path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pkl: No such file"):
        load_pickle(tmp_path / "absent.pkl")
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(CheckpointError, match=r"empty\.pkl: is empty"):
        load_pickle(tmp_path / "empty.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_honest_values_are_read_as_data(tmp_path: Path, protocol: int) -> None:
    values: dict[str, Any] = {
        "numbers": [1, -1, 2**40, 0.5, True, None],
        "tensor": torch.arange(12.0).reshape(3, 4).t()[1:],
        "half": torch.ones(3, dtype=torch.float16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": collections.OrderedDict(a=1),
        "easy": ada_snapshots.EasyDict(b=ada_snapshots.EasyDict(c=2)),
        "names": {"x", "y"},
        "nothing": torch.zeros(0, 3),
    }
    if protocol > 2:  # in protocol 2 bytes are text that a codec turns back
        values["scalar"] = np.float64(0.25)
    else:
        del values["tensor"], values["half"], values["parameter"], values["nothing"]
    path = tmp_path / "values.pkl"
    with ada_snapshots.official_modules():
        path.write_bytes(pickle.dumps(values, protocol))
    found = load_pickle(path)
    assert isinstance(found, dict)
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name].tensor(), value.detach())
            assert found[name].tensor().dtype == value.dtype
        else:
            assert found[name] == value


def test_a_module_becomes_a_record_and_its_source_is_not_run(tmp_path: Path) -> None:
    source = ada_snapshots.FullyConnectedLayer(2, 3)
    path = ada_snapshots.write(tmp_path / "network.pkl", G_ema=source)
    assert b"raise SystemExit" in path.read_bytes()
    found = load_pickle(path)
    assert isinstance(found, dict)
    record = found["G_ema"]
    assert isinstance(record, Record)
    assert record.class_name == "FullyConnectedLayer"
    assert record.fields["weight_gain"] == pytest.approx(1 / np.sqrt(2))


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_archives_of_torch_are_read_as_data(tmp_path: Path, modern: bool) -> None:
    shared = torch.randn(4, 4)
    values: dict[str, Any] = {
        "state": torch.nn.Linear(3, 2).state_dict(),  # an OrderedDict with attributes of its own
        "rows": [shared[1], shared[:, 2]],
        "args": argparse.Namespace(lr=0.002, size=256),
        "flags": torch.tensor([True, False]),
    }
    path = tmp_path / "file.pt"
    torch.save(values, path, _use_new_zipfile_serialization=modern)
    found: Any = load_archive(path)
    for name, tensor in values["state"].items():
        assert torch.equal(found["state"][name].tensor(), tensor)
    assert torch.equal(found["rows"][0].tensor(), shared[1])
    assert torch.equal(found["rows"][1].tensor(), shared[:, 2])
    assert found["flags"].tensor().tolist() == [True, False]
    assert found["args"].fields == {"lr": 0.002, "size": 256}


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_archives_that_call_are_refused_by_name(tmp_path: Path, modern: bool) -> None:
    path = tmp_path / "file.pt"
    torch.save(
        {"g_ema": Calls(os.system, marker(tmp_path))}, path, _use_new_zipfile_serialization=modern
    )
    with pytest.raises(
        RefusedPickleError, match=rf"file\.pt: .*global {os.system.__module__}\.sys"
    ):
        load_archive(path)
    assert not (tmp_path / "executed").exists()


def test_archives_with_other_than_plain_records_are_refused(tmp_path: Path) -> None:
    honest, path = tmp_path / "honest.pt", tmp_path / "file.pt"
    torch.save({"x": torch.zeros(2**20)}, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for info in source.infolist():
            out.writestr(info.filename, source.read(info))
    with pytest.raises(RefusedPickleError, match="is compressed"):
        load_archive(path)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(path, "w") as out:
        for info in source.infolist():
            kept = 100 if info.filename.endswith("data/0") else None
            out.writestr(info.filename, source.read(info)[:kept])
    with pytest.raises(RefusedPickleError, match=r"no record '0' of 4194304 bytes"):
        load_archive(path)
    data = bytearray(honest.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found: Any = load_archive(path)
    assert isinstance(found["x"], StoredTensor)
    with pytest.raises(RefusedPickleError, match="is damaged"):
        found["x"].tensor()


def test_limits_can_be_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(["text"] * 100))
    with pytest.raises(RefusedPickleError, match="more than 50 opcodes"):
        load_pickle(path, Limits(opcodes=50))
