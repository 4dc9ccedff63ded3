"""Every mistake of a caller gets its own status with details, and the server keeps serving."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from PIL import Image

from velatura.server.rpc.tokens import write_token
from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2,
    edit_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    image_pb2,
    region_pb2,
    segment_pb2,
    segment_pb2_grpc,
    stylize_pb2,
    stylize_pb2_grpc,
)

from ..running import RunningServer, file_of, picture, png, samples
from .failures import failing

Code = grpc.StatusCode
Editing = edit_pb2_grpc.EditServiceStub
Styling = stylize_pb2_grpc.StyleServiceStub


@pytest.fixture(autouse=True)
def still_serves(editing: Editing) -> Iterator[None]:
    """After each mistake a plain request has to be answered."""
    yield
    answer = editing.Encode(edit_pb2.EncodeRequest(image=png(32, 32)), timeout=60)
    assert answer.latent_token


def offset(**fields: object) -> edit_pb2.Edit:
    layers = edit_pb2.LayerRange(start=0, end=4)
    values = fields.pop("values", [0.5])
    return edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=values))  # type: ignore[arg-type]


def edit_of(data: bytes) -> edit_pb2.EditImageRequest:
    return edit_pb2.EditImageRequest(image=image_pb2.Image(encoded=data), edits=[offset()])


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that declares a size, with any compressed content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def bomb() -> bytes:
    """A valid PNG of 6,000 × 6,000 pixels, 108 MB of samples, in half a megabyte."""
    return png_header(6_000, 6_000, zlib.compress(bytes(6_000 * (1 + 3 * 6_000)), 1))


JPEG = file_of(picture(200, 150), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"this is no image at all", "NOT_AN_IMAGE", id="text"),
        pytest.param(b"\x00" * 1000, "NOT_AN_IMAGE", id="zeros"),
        pytest.param(file_of(picture(20, 20), "GIF"), "UNSUPPORTED_FORMAT", id="gif"),
        pytest.param(JPEG[: len(JPEG) // 2], "TRUNCATED", id="half a jpeg"),
        pytest.param(JPEG[:20], "TRUNCATED", id="start of a jpeg"),
        pytest.param(png_header(0, 0), "EMPTY", id="0x0"),
        pytest.param(png_header(5000, 4000), "TOO_MANY_PIXELS", id="over the pixels"),
        pytest.param(png_header(16_400, 2), "SIDE_TOO_LONG", id="over the side"),
    ],
)
def test_bad_images_are_named(editing: Editing, data: bytes, reason: str) -> None:
    failure = failing(editing.EditImage, edit_of(data))
    assert failure.code is Code.INVALID_ARGUMENT
    assert failure.reason == reason
    assert failure.fields == ["image"]
    assert failure.info["field"] == "image"


def test_a_decompression_bomb_costs_neither_time_nor_memory(
    editing: Editing, server: RunningServer
) -> None:
    data = bomb()
    before, start = server.total("process_resident_memory_bytes"), time.monotonic()
    failure = failing(editing.EditImage, edit_of(data))
    assert time.monotonic() - start < 2
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "TOO_MANY_PIXELS")
    assert failure.info["limit"] == "16777216"
    assert failure.info["actual"] == str(6_000 * 6_000)
    assert server.total("process_resident_memory_bytes") - before < 50e6


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (image_pb2.RawImage(width=0, height=0, channels=3, data=b"x"), ["width", "height"]),
        (image_pb2.RawImage(width=2, height=2, channels=7, data=b"x"), ["channels"]),
        (image_pb2.RawImage(width=2, height=2, channels=2, data=b"x" * 8), ["channels"]),
        (image_pb2.RawImage(width=2, height=2, channels=3, data=b"x" * 11), ["data"]),
        (image_pb2.RawImage(width=2, height=2, channels=3), ["data"]),
    ],
)
def test_bad_raw_images_are_named(
    editing: Editing, raw: image_pb2.RawImage, fields: list[str]
) -> None:
    request = edit_pb2.EditImageRequest(image=image_pb2.Image(raw=raw), edits=[offset()])
    failure = failing(editing.EditImage, request)
    assert failure.code is Code.INVALID_ARGUMENT
    assert failure.fields == [f"image.raw.{field}" for field in fields]


def test_an_image_without_a_source_is_named(editing: Editing) -> None:
    request = edit_pb2.EditImageRequest(image=image_pb2.Image(), edits=[offset()])
    assert failing(editing.EditImage, request).fields == ["image.source"]


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 10.5, -11])
def test_a_bad_strength_is_named(editing: Editing, direction: str, strength: float) -> None:
    edit = edit_pb2.Edit(direction=edit_pb2.DirectionEdit(name=direction, strength=strength))
    request = edit_pb2.EditImageRequest(image=png(32, 32), edits=[offset(), edit])
    failure = failing(editing.EditImage, request)
    assert failure.code is Code.INVALID_ARGUMENT
    assert failure.fields == ["edits[1].direction.strength"]
    assert "-10 to 10" in failure.descriptions[0]


def test_a_bad_style_strength_is_named(styling: Styling, styles: list[str]) -> None:
    style = stylize_pb2.StyleSource(preset=styles[0])
    for strength in (1.2, -0.1, float("nan")):
        request = stylize_pb2.StylizeRequest(content=png(32, 32), styles=[style], strength=strength)
        failure = failing(styling.Stylize, request)
        assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["strength"])


def test_an_empty_edit_list_is_named(editing: Editing) -> None:
    failure = failing(editing.EditImage, edit_pb2.EditImageRequest(image=png(32, 32)))
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["edits"])
    assert "smile" in failure.descriptions[0]


def test_an_edit_of_nothing_is_named(editing: Editing) -> None:
    request = edit_pb2.EditImageRequest(image=png(32, 32), edits=[edit_pb2.Edit()])
    assert failing(editing.EditImage, request).fields == ["edits[0].kind"]
    request = edit_pb2.EditImageRequest(edits=[offset()])
    assert failing(editing.EditImage, request).fields == ["image"]


def test_all_violations_are_named_at_once(editing: Editing) -> None:
    bad = edit_pb2.DirectionEdit(strength=float("nan"), layers=edit_pb2.LayerRange(start=99))
    request = edit_pb2.EditImageRequest(
        image=png(32, 32),
        edits=[edit_pb2.Edit(direction=bad), offset(values=[1.0, float("inf"), 3.0, -200.0])],
        region=region_pb2.Region(grow_px=1000),
        output=image_pb2.OutputOptions(quality=101, format=77),  # type: ignore[arg-type]
    )
    failure = failing(editing.EditImage, request)
    assert set(failure.fields) == {
        "edits[0].direction.name",
        "edits[0].direction.strength",
        "edits[0].direction.layers.start",
        "edits[0].direction.layers.end",
        "edits[1].offset.values[1]",
        "edits[1].offset.values[3]",
        "region.parts",
        "region.grow_px",
        "output.quality",
        "output.format",
    }


def test_thousands_of_violations_still_fit_into_the_details(editing: Editing) -> None:
    request = edit_pb2.EditImageRequest(
        image=png(32, 32), edits=[offset(values=[float("nan")] * 6000)]
    )
    failure = failing(editing.EditImage, request)
    assert failure.code is Code.INVALID_ARGUMENT
    assert "5990 more" in failure.descriptions[-1]


@pytest.mark.parametrize(
    ("layers", "field"),
    [((8, 4), "layers"), ((4, 4), "layers"), ((0, 13), "layers.end")],
)
def test_layers_that_do_not_fit_the_generator_are_named(
    editing: Editing, layers: tuple[int, int], field: str
) -> None:
    edit = offset()
    edit.offset.layers.start, edit.offset.layers.end = layers
    failure = failing(editing.EditImage, edit_pb2.EditImageRequest(image=png(32, 32), edits=[edit]))
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, [f"edits[0].offset.{field}"])


def test_offsets_that_do_not_fit_the_layers_are_named(editing: Editing) -> None:
    request = edit_pb2.EditImageRequest(image=png(32, 32), edits=[offset(values=[0.1] * 7)])
    failure = failing(editing.EditImage, request)
    assert failure.fields == ["edits[0].offset.values"]
    assert "1, 128 or 512" in failure.descriptions[0]


def test_unknown_names_are_not_found_and_the_known_ones_listed(
    editing: Editing,
    styling: Styling,
    segmenting: segment_pb2_grpc.SegmentServiceStub,
    catalog: catalog_pb2_grpc.CatalogServiceStub,
    direction: str,
    styles: list[str],
) -> None:
    image, good = png(32, 32), offset()
    misspelt = edit_pb2.DirectionEdit(name=f"{direction}s", strength=1)
    unknown = edit_pb2.Edit(direction=misspelt)
    styled = stylize_pb2.StyleSource(preset=styles[0])
    region = region_pb2.Region(parts=[region_pb2.RegionPart(class_name="moustache")])
    cases = [
        (
            editing.EditImage,
            edit_pb2.EditImageRequest(image=image, edits=[unknown]),
            "UNKNOWN_DIRECTION", "edits[0].direction.name", direction,
        ),
        (
            editing.EditImage,
            edit_pb2.EditImageRequest(image=image, edits=[good], generator="cat"),
            "UNKNOWN_GENERATOR", "generator", "avatar",
        ),
        (
            editing.EditImage,
            edit_pb2.EditImageRequest(image=image, edits=[good], segmenter="cat"),
            "UNKNOWN_SEGMENTER", "segmenter", "avatar-segmenter",
        ),
        (
            editing.EditImage,
            edit_pb2.EditImageRequest(image=image, edits=[good], region=region),
            "UNKNOWN_CLASS", "region.parts[0].class_name", "mouth",
        ),
        (
            styling.Stylize,
            stylize_pb2.StylizeRequest(
                content=image, styles=[styled, stylize_pb2.StyleSource(preset="kitsch")]
            ),
            "UNKNOWN_STYLE", "styles[1].preset", styles[0],
        ),
        (
            styling.Stylize,
            stylize_pb2.StylizeRequest(content=image, styles=[styled], model="cat"),
            "UNKNOWN_STYLE_MODEL", "model", "style-presets",
        ),
        (
            styling.Stylize,
            stylize_pb2.StylizeRequest(content=image, styles=[styled], region=region),
            "UNKNOWN_CLASS", "region.parts[0].class_name", "mouth",
        ),
        (
            segmenting.Segment,
            segment_pb2.SegmentRequest(image=image, model="cat"),
            "UNKNOWN_SEGMENTER", "model", "avatar-segmenter",
        ),
        (
            catalog.ListDirections,
            catalog_pb2.ListDirectionsRequest(generator="cat"),
            "UNKNOWN_GENERATOR", "generator", "avatar",
        ),
    ]  # fmt: skip
    for call, request, reason, field, known in cases:
        failure = failing(call, request)
        assert failure.code is Code.NOT_FOUND, reason
        assert failure.reason == reason
        assert failure.info["field"] == field
        assert known in failure.message
        assert failure.resource is not None


def test_a_style_model_of_the_wrong_kind_is_named(styling: Styling, styles: list[str]) -> None:
    style = stylize_pb2.StyleSource(preset=styles[0])
    request = stylize_pb2.StylizeRequest(
        content=png(32, 32), styles=[style], model="style-transformer"
    )
    failure = failing(styling.Stylize, request)
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["model"])


def test_a_mask_of_another_size_is_refused_with_both_sizes(editing: Editing) -> None:
    mask = image_pb2.Image(encoded=file_of(Image.new("L", (31, 32), 255)))
    parts = [
        region_pb2.RegionPart(box=region_pb2.Box(width=4, height=4)),
        region_pb2.RegionPart(mask=mask),
    ]
    request = edit_pb2.EditImageRequest(
        image=png(32, 32), edits=[offset()], region=region_pb2.Region(parts=parts)
    )
    failure = failing(editing.EditImage, request)
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "WRONG_SIZE")
    assert failure.fields == ["region.parts[1].mask"]
    assert "31×32" in failure.message
    assert "32×32" in failure.message


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (region_pb2.RegionPart(box=region_pb2.Box(x=40, y=0, width=5, height=5)), "box"),
        (region_pb2.RegionPart(click=region_pb2.Point(x=32, y=0)), "click"),
    ],
)
def test_parts_outside_the_image_are_named(
    editing: Editing, part: region_pb2.RegionPart, field: str
) -> None:
    request = edit_pb2.EditImageRequest(
        image=png(32, 32), edits=[offset()], region=region_pb2.Region(parts=[part])
    )
    failure = failing(editing.EditImage, request)
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "OUTSIDE_IMAGE")
    assert failure.fields == [f"region.parts[0].{field}"]


@pytest.mark.parametrize(
    "frame",
    [
        region_pb2.Box(x=0, y=0, width=20, height=10),
        region_pb2.Box(x=20, y=0, width=20, height=20),
        region_pb2.Box(x=-1, y=0, width=20, height=20),
    ],
)
def test_a_frame_that_is_not_a_square_inside_is_named(
    editing: Editing, frame: region_pb2.Box
) -> None:
    for failure in (
        failing(
            editing.EditImage,
            edit_pb2.EditImageRequest(image=png(32, 32), edits=[offset()], frame=frame),
        ),
        failing(editing.Encode, edit_pb2.EncodeRequest(image=png(32, 32), frame=frame)),
    ):
        assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["frame"])


def test_options_that_contradict_each_other_are_named(editing: Editing) -> None:
    request = edit_of(JPEG)
    request.output.lossless = True
    assert failing(editing.EditImage, request).fields == ["output.lossless"]


def test_a_token_of_another_model_is_refused_with_both_hashes(
    editing: Editing, models: catalog_pb2.ListModelsResponse
) -> None:
    hashes = {each.entry.name: each.entry.sha256 for each in models.models}
    own = hashes[models.generators[0].synthesis]
    token = write_token(np.zeros((12, 128), np.float32), "ab" * 32)
    reference = edit_pb2.Edit(reference=edit_pb2.ReferenceEdit(latent_token=token, strength=1))
    for request, field in (
        (edit_pb2.EditImageRequest(latent_token=token, edits=[offset()]), "latent_token"),
        (
            edit_pb2.EditImageRequest(image=png(32, 32), edits=[offset(), reference]),
            "edits[1].reference.latent_token",
        ),
    ):
        failure = failing(editing.EditImage, request)
        assert (failure.code, failure.reason) == (
            Code.FAILED_PRECONDITION,
            "TOKEN_OF_ANOTHER_MODEL",
        )
        assert failure.info["field"] == field
        assert "abababab" in failure.message
        assert own[:32] in failure.message


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign", "not finite"])
def test_a_damaged_token_is_named(
    editing: Editing, models: catalog_pb2.ListModelsResponse, damage: str
) -> None:
    hashes = {each.entry.name: each.entry.sha256 for each in models.models}
    own = hashes[models.generators[0].synthesis]
    latents = np.zeros((12, 128), np.float32)
    token = write_token(latents, own)
    flipped = token[:100] + bytes([token[100] ^ 1]) + token[101:]
    latents[3, 5] = np.nan
    bad = {
        "flipped": flipped,
        "cut": token[:-1],
        "foreign": b"token",
        "not finite": write_token(latents, own),
    }
    request = edit_pb2.EditImageRequest(latent_token=bad[damage], edits=[offset()])
    failure = failing(editing.EditImage, request)
    assert (failure.code, failure.reason) == (Code.INVALID_ARGUMENT, "TOKEN_DAMAGED")
    assert failure.fields == ["latent_token"]


def test_generate_refuses_what_it_cannot_sample(
    generating: generate_pb2_grpc.GenerateServiceStub,
) -> None:
    request = generate_pb2.GenerateRequest
    mixing = generate_pb2.StyleMixing(seed=1, layers=edit_pb2.LayerRange(start=4, end=13))
    for bad, code, field in (
        (request(), Code.INVALID_ARGUMENT, "seeds"),
        (request(seeds=range(257)), Code.INVALID_ARGUMENT, "seeds"),
        (request(seeds=[1], truncation_psi=2.5), Code.INVALID_ARGUMENT, "truncation_psi"),
        (request(seeds=[1], mixing=mixing), Code.INVALID_ARGUMENT, "mixing.layers"),
        (request(seeds=[1], class_name="cat"), Code.FAILED_PRECONDITION, "class_name"),
    ):
        failure = failing(generating.Generate, bad)
        assert failure.code is code
        assert failure.info["field"] == field


def test_a_message_over_the_limit_is_refused(editing: Editing) -> None:
    limit = 33 * 1024 * 1024
    failure = failing(editing.EditImage, edit_of(b"\x89PNG" + bytes(limit)))
    assert (failure.code, failure.reason) == (Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert failure.info["limit"] == str(limit)
    assert f"{limit:,}" in failure.message
    assert failure.retry_delay_s is None
    assert failure.trailers["grpc-retry-pushback-ms"] == "-1"


def test_a_message_far_over_the_limit_is_refused_by_the_transport(editing: Editing) -> None:
    request = edit_of(b"\x89PNG" + bytes(67 * 1024 * 1024))
    with pytest.raises(grpc.RpcError) as raised:
        editing.EditImage(request)
    assert raised.value.code() is Code.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert "larger than max" in raised.value.details()  # type: ignore[attr-defined]


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/velatura.v1.EditService/EditImage")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"\xff\xff\xff\xff")
    assert raised.value.code() is Code.INVALID_ARGUMENT  # type: ignore[attr-defined]


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/velatura.v1.EditService/Undo")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"")
    assert raised.value.code() is Code.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_a_deadline_that_passes_is_reported_and_frees_the_server(
    styling: Styling, styles: list[str], server: RunningServer
) -> None:
    request = stylize_pb2.StylizeRequest(
        content=png(900, 900), styles=[stylize_pb2.StyleSource(preset=styles[0])]
    )
    handled = {
        "grpc_service": "velatura.v1.StyleService",
        "grpc_code": "DEADLINE_EXCEEDED",
    }
    before = server.total("grpc_server_handled_total", **handled)
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        styling.Stylize(request, timeout=0.1)
    assert raised.value.code() is Code.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert time.monotonic() - start < 1
    until = time.monotonic() + 10
    while server.total("grpc_server_in_flight") > 0 and time.monotonic() < until:
        time.sleep(0.05)
    assert server.total("grpc_server_in_flight") == 0
    assert server.total("grpc_server_handled_total", **handled) == before + 1


def test_cancelled_calls_leave_their_batch_mates_alone(
    editing: Editing, server: RunningServer
) -> None:
    def request(seed: int) -> edit_pb2.EditImageRequest:
        return edit_pb2.EditImageRequest(image=png(128, 128, seed), edits=[offset(values=[1.0])])

    expected = [samples(editing.EditImage(request(seed)).image) for seed in range(12)]
    cancelled = 0
    # some are on their way, some are decoding, some in a batch, some waiting for one; at once
    # is among the delays because a fast machine may have answered everybody later on
    for delay in (0.0, 0.01, 0.03):
        calls = [editing.EditImage.future(request(seed)) for seed in range(12)]
        time.sleep(delay)
        for call in calls[::3]:
            cancelled += call.cancel()
        for seed, call in enumerate(calls):
            if seed % 3:
                assert np.abs(samples(call.result(timeout=60).image) - expected[seed]).max() <= 1
    assert cancelled > 0
    assert server.total("velatura_model_requests_total", outcome="device") == 0
