"""What repeats is computed once, answers are the same with it and without, and nothing is shared
between callers with different API keys.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from velatura.v1 import (
    edit_pb2,
    edit_pb2_grpc,
    image_pb2,
    region_pb2,
    segment_pb2,
    segment_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)

from ..running import RunningServer, file_of, picture, png

ENCODER, SYNTHESIS, SEGMENTER = "avatar-encoder", "avatar-synthesis", "avatar-segmenter"
AT_ONCE = 50
Start = Callable[..., RunningServer]


def offset(value: float = 0.5) -> edit_pb2.Edit:
    layers = edit_pb2.LayerRange(start=4, end=12)
    return edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[value]))


def part(**kind: Any) -> region_pb2.Region:
    return region_pb2.Region(parts=[region_pb2.RegionPart(**kind)], feather_px=2)


def edit_of(image: image_pb2.Image, value: float = 0.5, **more: Any) -> edit_pb2.EditImageRequest:
    return edit_pb2.EditImageRequest(image=image, edits=[offset(value)], **more)


def items(server: RunningServer, model: str) -> float:
    """Items that a network has run so far."""
    return server.total("velatura_batch_size_sum", model=model)


def found(server: RunningServer, cache: str, outcome: str = "hit") -> float:
    return server.total("velatura_cache_requests_total", cache=cache, outcome=outcome)


@pytest.fixture(scope="module")
def own(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of this module's own, so that what it has seen is known."""
    from ..running import start_server

    running = start_server(bundle_path, tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


def test_fifty_identical_edits_at_once_run_the_encoder_once(own: RunningServer) -> None:
    stub = edit_pb2_grpc.EditServiceStub(own.channel())
    request = edit_of(png(140, 128, seed=1), region=part(click=region_pb2.Point(x=60, y=60)))
    before = {name: items(own, name) for name in (ENCODER, SYNTHESIS, SEGMENTER)}
    start = Barrier(AT_ONCE)

    def call(_: int) -> edit_pb2.EditImageResponse:
        start.wait()
        return stub.EditImage(request)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(call, range(AT_ONCE)))

    assert {answer.image.encoded for answer in answers} == {answers[0].image.encoded}
    assert {len(answer.models) for answer in answers} == {3}  # whoever ran them
    assert items(own, ENCODER) - before[ENCODER] == 1
    assert items(own, SEGMENTER) - before[SEGMENTER] == 2  # two squares cover it
    assert items(own, SYNTHESIS) - before[SYNTHESIS] <= 2 * AT_ONCE
    shared = own.total("velatura_single_flight_joined_total", cache="latents")
    assert shared + found(own, "latents") == AT_ONCE - 1
    assert own.total("velatura_codec_seconds_count", operation="decode") == 1


def test_a_slider_costs_one_generated_image_a_step(own: RunningServer) -> None:
    stub = edit_pb2_grpc.EditServiceStub(own.channel())
    names = (ENCODER, SYNTHESIS, SEGMENTER)
    before = {name: items(own, name) for name in names}
    answers = [
        stub.EditImage(edit_of(png(128, 128, seed=2), value / 10, region=part(class_name="hair")))
        for value in range(8)
    ]
    ran = {name: items(own, name) - before[name] for name in names}
    assert ran == {ENCODER: 1, SYNTHESIS: 9, SEGMENTER: 1}
    assert len({answer.latent_token for answer in answers}) == 8

    # The same from a token: what the latents show is known already.
    token = stub.Encode(edit_pb2.EncodeRequest(image=png(128, 128, seed=2))).latent_token
    stub.EditImage(edit_of(png(128, 128, seed=2), 0.9, latent_token=token))
    assert items(own, ENCODER) - before[ENCODER] == 1
    assert items(own, SYNTHESIS) - before[SYNTHESIS] == 10


def test_another_frame_or_another_picture_is_computed_anew(own: RunningServer) -> None:
    stub = edit_pb2_grpc.EditServiceStub(own.channel())
    image = png(200, 128, seed=3)
    stub.EditImage(edit_of(image))
    before = items(own, ENCODER)
    stub.EditImage(edit_of(image, frame=region_pb2.Box(x=0, y=0, width=100, height=100)))
    assert items(own, ENCODER) == before + 1
    stub.EditImage(edit_of(png(200, 128, seed=4)))
    assert items(own, ENCODER) == before + 2
    # The same samples as raw bytes of another shape are another picture.
    data = picture(200, 128, 3).tobytes()
    for width, height in ((200, 128), (128, 200)):
        raw = image_pb2.RawImage(width=width, height=height, channels=3, data=data)
        stub.EditImage(edit_of(image_pb2.Image(raw=raw)))
    assert items(own, ENCODER) == before + 4


def requests() -> list[tuple[str, Message]]:
    """Requests of every kind that the caches have a part in."""
    image, other = png(150, 110, seed=5), png(96, 96, seed=6)
    jpeg = image_pb2.Image(encoded=file_of(picture(150, 110, 5), "JPEG"))
    clear = png(100, 140, seed=7, alpha=True)
    reference = edit_pb2.Edit(reference=edit_pb2.ReferenceEdit(image=other, strength=0.7))
    click = part(click=region_pb2.Point(x=70, y=50))
    mask = part(mask=png(150, 110, seed=8))
    style = stylize_pb2.StyleSource(image=other)
    return [
        ("EditImage", edit_of(image, region=click)),
        ("EditImage", edit_of(image, 0.9, region=part(class_name="skin"))),
        ("EditImage", edit_of(image, region=mask)),
        ("EditImage", edit_of(jpeg)),
        ("EditImage", edit_of(clear, region=part(class_name="hair"))),
        ("EditImage", edit_pb2.EditImageRequest(image=image, edits=[reference, offset()])),
        ("Encode", edit_pb2.EncodeRequest(image=image, with_reconstruction=True)),
        ("Segment", segment_pb2.SegmentRequest(image=image, with_overlay=True)),
        ("Stylize", stylize_pb2.StylizeRequest(content=image, styles=[style], region=click)),
    ]


def answer_of(server: RunningServer, method: str, request: Message) -> Message:
    channel = server.channel()
    stubs = {
        "EditImage": edit_pb2_grpc.EditServiceStub,
        "Encode": edit_pb2_grpc.EditServiceStub,
        "Segment": segment_pb2_grpc.SegmentServiceStub,
        "Stylize": stylize_pb2_grpc.StyleServiceStub,
    }
    answer: Message = getattr(stubs[method](channel), method)(request)
    answer.ClearField("timings")
    return answer


def test_answers_are_the_same_with_what_is_kept_and_without(
    own: RunningServer, start: Start
) -> None:
    plain = start("--cache-mib", "0")
    for method, request in requests():
        fresh = answer_of(plain, method, request)
        assert answer_of(own, method, request) == fresh, method
        assert answer_of(own, method, request) == fresh, method
    # In another order, so that other requests have left what these find.
    for method, request in reversed(requests()):
        assert answer_of(own, method, request) == answer_of(plain, method, request), method
    for cache in ("pictures", "latents", "labels", "images"):
        assert found(own, cache) > 0
        assert found(plain, cache) == found(plain, cache, "miss") == 0
    assert plain.total("velatura_cache_bytes") == 0


def test_what_is_kept_stays_within_its_bytes(start: Start) -> None:
    server = start("--cache-mib", "1")
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    for seed in range(12):
        stub.EditImage(edit_of(png(160, 160, seed=seed)))
    for cache in ("pictures", "images", "labels", "latents"):
        limit = server.total("velatura_cache_limit_bytes", cache=cache)
        assert server.total("velatura_cache_bytes", cache=cache) <= limit
    assert server.total("velatura_cache_limit_bytes") == 1 << 20
    assert server.total("velatura_cache_evictions_total", cache="pictures") > 0
    kept = {c: server.total("velatura_cache_entries", cache=c) for c in ("pictures", "latents")}
    assert 0 < kept["pictures"] < kept["latents"]  # pictures do not drive out what is small


def test_nothing_is_shared_between_keys(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\nsecond\n")
    server = start("--api-keys", str(keys))
    stub = edit_pb2_grpc.EditServiceStub(server.channel())
    request = edit_of(png(128, 128, seed=9), region=part(class_name="hair"))

    def call(key: str) -> edit_pb2.EditImageResponse:
        return stub.EditImage(request, metadata=(("authorization", f"Bearer {key}"),))

    first = call("first")
    assert call("first").image == first.image
    assert items(server, ENCODER) == items(server, SEGMENTER) == 1
    hits = server.total("velatura_cache_requests_total", outcome="hit")
    assert call("second").image == first.image
    assert items(server, ENCODER) == items(server, SEGMENTER) == 2
    assert server.total("velatura_cache_requests_total", outcome="hit") == hits


def test_a_bad_image_is_told_with_the_field_of_each_caller(own: RunningServer) -> None:
    stub = edit_pb2_grpc.EditServiceStub(own.channel())
    bad = image_pb2.Image(encoded=file_of(picture(600, 600, 10))[:-5000])
    as_reference = edit_pb2.Edit(reference=edit_pb2.ReferenceEdit(image=bad))
    good = edit_pb2.EditImageRequest(image=png(64, 64), edits=[as_reference])
    calls = [stub.EditImage.future(request) for request in (edit_of(bad), good, edit_of(bad), good)]
    errors = [call.exception() for call in calls]
    assert all(error.code() is grpc.StatusCode.INVALID_ARGUMENT for error in errors)
    assert [error.details().startswith("image") for error in errors] == [True, False] * 2
    assert [error.details().startswith("edits[0].reference.image") for error in errors] == [
        False,
        True,
    ] * 2


def test_whoever_hangs_up_first_hurts_nobody_with_the_same_request(own: RunningServer) -> None:
    stub = edit_pb2_grpc.EditServiceStub(own.channel())
    for seed in range(20, 24):
        request = edit_of(png(300, 260, seed=seed))
        calls = [stub.EditImage.future(request) for _ in range(8)]
        for call in calls[:4]:
            call.cancel()
        answers = {call.result().image.encoded for call in calls[4:]}
        assert len(answers) == 1
