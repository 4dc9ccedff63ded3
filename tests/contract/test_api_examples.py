"""The examples of docs/api.md do what they show, against a real server."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from inference import open_inference_pb2
from velatura.v1 import catalog_pb2, edit_pb2, generate_pb2, segment_pb2, stylize_pb2

from ..running import RunningServer, file_of, picture

EXAMPLES = Path(__file__).parents[2] / "protos/api_docs/examples"
FILES = (edit_pb2, stylize_pb2, segment_pb2, generate_pb2, catalog_pb2, open_inference_pb2)
METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the examples name."""
    (tmp_path / "face.png").write_bytes(file_of(picture(64, 64)))
    for name in ("photo", "painting", "other"):
        (tmp_path / f"{name}.jpg").write_bytes(file_of(picture(96, 64), "JPEG"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(suffix: str) -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob(f"*{suffix}"))


@pytest.mark.parametrize("name", named(".py"))
def test_python(name: str, server: RunningServer, pictures: Path) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert "localhost:8500" in text
    here = text.replace("localhost:8500", server.address)
    before = set(pictures.iterdir())
    exec(compile(here, f"{name}.py", "exec"), {})  # noqa: S102
    # What it saves is there afterwards.
    assert bool(set(pictures.iterdir()) - before) == (".save(" in text)


@pytest.mark.parametrize("name", named(".json"))
def test_grpcurl(name: str, channel: grpc.Channel, pictures: Path) -> None:
    """The JSON that is given to grpcurl, read as grpcurl reads it and sent."""

    def content(found: re.Match[str]) -> str:
        return base64.b64encode((pictures / found[1]).read_bytes()).decode()

    text = re.sub(r"@([\w.-]+)", content, (EXAMPLES / f"{name}.json").read_text())
    method = METHODS[name]
    request = json_format.Parse(text, message_factory.GetMessageClass(method.input_type)())
    answers = message_factory.GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        send = channel.unary_stream(path, type(request).SerializeToString, answers.FromString)
        assert list(send(request, timeout=60))
    else:
        send = channel.unary_unary(path, type(request).SerializeToString, answers.FromString)
        assert send(request, timeout=60).ByteSize() > 0


def test_every_method_of_ours_has_both() -> None:
    ours = {name for name, method in METHODS.items() if method.full_name.startswith("velatura.")}
    assert ours <= set(named(".py"))
    assert ours <= set(named(".json"))
