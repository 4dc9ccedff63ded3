"""Sums over codes are what the callers saw, exactly: successes, mistakes, refusals, keys, sizes,
unknown methods, deadlines, cancellations."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    image_pb2,
    stylize_pb2,
    stylize_pb2_grpc,
)

from ..running import RunningServer, file_of, picture, png

Start = Callable[..., RunningServer]
Seen = Counter[tuple[str, str]]  # method and code
KEY = (("authorization", "Bearer the-key"),)
IN_FLIGHT = "grpc_server_in_flight"


def counted(server: RunningServer, metric: str) -> Seen:
    """A counter's values by method and code ("" where it has none); zeros are left out."""
    found: Seen = Counter()
    for name, value in server.metrics().items():
        if name.startswith(metric + "{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            found[labels["grpc_method"], labels.get("grpc_code", "")] += round(value)
    return +found


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


class Callers:
    """Sends calls and notes how each of them ended."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        channel = server.channel()
        self.channel = channel
        self.editing = edit_pb2_grpc.EditServiceStub(channel)
        self.styling = stylize_pb2_grpc.StyleServiceStub(channel)
        self.generating = generate_pb2_grpc.GenerateServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.seen: Seen = Counter()
        listed = self.catalog.ListStyles(catalog_pb2.ListStylesRequest(), metadata=KEY)
        self.seen["ListStyles", "OK"] += 1
        self.style = stylize_pb2.StyleSource(preset=listed.styles[0].name)

    def note(self, method: str, call: Callable[[], object]) -> None:
        """Make a call and note its code."""
        try:
            call()
        except grpc.RpcError as error:
            self.seen[method, error.code().name] += 1  # type: ignore[attr-defined]
        else:
            self.seen[method, "OK"] += 1

    def edit(self, **fields: object) -> None:
        layers = edit_pb2.LayerRange(start=0, end=4)
        edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0.5]))
        request = edit_pb2.EditImageRequest(
            image=png(64, 64),
            edits=[edit],
            **fields,  # type: ignore[arg-type]
        )
        self.editing.EditImage(request, metadata=KEY)

    def too_large(self, mebibytes: int = 4) -> None:
        image = image_pb2.Image(encoded=b"0" * (mebibytes << 20))
        self.editing.Encode(edit_pb2.EncodeRequest(image=image), metadata=KEY)

    def stranger(self) -> None:
        self.catalog.ListStyles(catalog_pb2.ListStylesRequest())

    def undo(self) -> None:
        self.channel.unary_unary("/velatura.v1.EditService/Undo")(b"", metadata=KEY)

    def generate(self, psi: float) -> None:
        request = generate_pb2.GenerateRequest(seeds=[1, 2], truncation_psi=psi)
        list(self.generating.Generate(request, metadata=KEY))

    def painting(self) -> stylize_pb2.StylizeRequest:
        """A picture that takes the network longer than any deadline here."""
        content = image_pb2.Image(encoded=file_of(picture(900, 900), "JPEG"))
        return stylize_pb2.StylizeRequest(content=content, styles=[self.style])

    def mixed(self) -> None:
        """Many at once: more than the server takes, so that some are refused."""
        kinds: list[tuple[str, Callable[[], object]]] = [
            ("EditImage", self.edit),
            ("EditImage", lambda: self.edit(generator="none")),
            ("Encode", self.too_large),
            ("ListStyles", self.stranger),
            ("unknown", self.undo),
            ("Generate", lambda: self.generate(0.5)),
            ("Generate", lambda: self.generate(99.0)),
        ]
        with ThreadPoolExecutor(12) as threads:
            list(threads.map(lambda kind: self.note(*kind), kinds * 6))

    def too_late(self) -> None:
        """The deadline passes while the network runs; the server was idle, so it is let in."""
        until(lambda: self.server.total(IN_FLIGHT) == 0)
        time.sleep(1.1)
        request = self.painting()
        self.note("Stylize", lambda: self.styling.Stylize(request, metadata=KEY, timeout=0.15))

    def gives_up(self) -> None:
        """Hangs up when the server is at work for certain."""
        until(lambda: self.server.total(IN_FLIGHT) == 0)
        call = self.styling.Stylize.future(self.painting(), metadata=KEY)
        until(lambda: self.server.total(IN_FLIGHT) == 1)
        assert call.cancel()
        self.seen["Stylize", call.code().name] += 1


def test_the_counters_are_what_the_callers_saw(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-key\n")
    server = start("--api-keys", str(keys), "--max-requests", "4", "--max-image-mib", "2")
    callers = Callers(server)
    callers.mixed()
    callers.too_late()
    callers.gives_up()
    callers.note("EditImage", callers.edit)
    until(lambda: server.total(IN_FLIGHT) == 0)

    seen = callers.seen
    assert {code for _, code in seen} >= {
        "OK", "NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED",
        "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "CANCELLED",
    }  # fmt: skip
    assert counted(server, "grpc_server_handled_total") == seen
    assert counted(server, "grpc_server_handling_seconds_count") == seen
    by_method = Counter[tuple[str, str]]()
    for (method, _), count in seen.items():
        by_method[method, ""] += count
    assert counted(server, "grpc_server_started_total") == by_method
    del by_method["unknown", ""]  # nobody reads their messages
    assert counted(server, "grpc_server_msg_received_total") == by_method
    failed = sum(count for (_, code), count in seen.items() if code != "OK")
    assert server.total("velatura_call_failures_total") == failed
    assert server.total("velatura_call_failures_total", reason="API_KEY") == 6
    assert server.total("velatura_call_failures_total", reason="UNKNOWN_METHOD") == 6
    lines = [event for event in server.events() if event["event"] == "call"]
    assert Counter(line["code"] for line in lines) == Counter(
        code for (_, code), count in seen.items() for _ in range(count)
    )

    # Over twice the limit gRPC itself refuses before any handler runs: the known exception.
    callers.note("Encode", lambda: callers.too_large(16))
    assert callers.seen["Encode", "RESOURCE_EXHAUSTED"] == 7
    assert counted(server, "grpc_server_handled_total").total() == seen.total() - 1
    assert server.total(IN_FLIGHT) == 0
