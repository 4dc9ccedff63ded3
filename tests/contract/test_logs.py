"""One line of the log for each call: what it took, and nothing of what was in it."""

from __future__ import annotations

import time
from typing import Any

import grpc

from velatura.v1 import edit_pb2, edit_pb2_grpc, generate_pb2, generate_pb2_grpc

from ..running import RunningServer, png
from .failures import failing

Editing = edit_pb2_grpc.EditServiceStub


def line_of(server: RunningServer, request_id: str) -> dict[str, Any]:
    """The line of the call that carried this id; it may be written just after the answer."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        lines = [each for each in server.events() if each.get("request_id") == request_id]
        if lines:
            (line,) = lines
            return line
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id}")


def request(**fields: Any) -> edit_pb2.EditImageRequest:
    layers = edit_pb2.LayerRange(start=0, end=4)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0.123456]))
    return edit_pb2.EditImageRequest(image=png(90, 60), edits=[edit], **fields)


def test_a_call_tells_its_sizes_its_stages_and_its_batches(
    editing: Editing, server: RunningServer
) -> None:
    sent = request()
    answer, call = editing.EditImage.with_call(sent, metadata=(("x-request-id", "logged-1"),))
    line = line_of(server, dict(call.trailing_metadata())["x-request-id"])
    assert line["event"] == "call"
    assert line["level"] == "info"
    assert line["method"] == "/velatura.v1.EditService/EditImage"
    assert line["code"] == "OK"
    assert (line["bytes_in"], line["bytes_out"]) == (sent.ByteSize(), answer.ByteSize())
    assert line["pixels_in"] == line["pixels_out"] == 90 * 60
    assert set(line["batches"]) == {"avatar-encoder", "avatar-synthesis"}
    assert sum(line["batches"]["avatar-synthesis"].values()) == 1
    stages = line["stages_ms"]
    assert [*stages][:: len(stages) - 1] == ["decode", "encode"]
    assert max(stages.values()) <= line["milliseconds"]
    assert 0 <= line["queue_ms"] <= line["milliseconds"]


def test_a_failed_call_tells_why_and_nothing_of_the_image(
    editing: Editing, server: RunningServer
) -> None:
    sent = request(latent_token=b"not a token but a secret of its owner")
    sent.image.encoded = b"<svg>a picture's content</svg>"
    failing(editing.EditImage, sent, metadata=(("x-request-id", "logged-2"),))
    line = line_of(server, "logged-2")
    assert line["code"] == "INVALID_ARGUMENT"
    assert line["reason"]
    assert line["error"]
    text = str(line)
    assert not any(secret in text for secret in ("secret", "svg", "content", "0.123456"))


def test_a_stream_is_one_line(channel: grpc.Channel, server: RunningServer) -> None:
    stub = generate_pb2_grpc.GenerateServiceStub(channel)
    metadata = (("x-request-id", "logged-3"),)
    answers = list(stub.Generate(generate_pb2.GenerateRequest(seeds=[1, 2, 3]), metadata=metadata))
    line = line_of(server, "logged-3")
    assert line["bytes_out"] == sum(each.ByteSize() for each in answers)
    assert line["pixels_out"] == 3 * 128 * 128
