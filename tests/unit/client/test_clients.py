"""Both clients against a server in this process: what is asked and what comes back."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from velatura.client import (
    Client,
    DeadlineExceeded,
    Direction,
    HealthStatus,
    InvalidArgument,
    Region,
)

Call = Callable[..., Any]
FACE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


def test_edit_image(fake: Any, call: Call) -> None:
    result = call(
        "edit_image",
        FACE,
        {"smile": 1.0, "glasses": -0.5},
        region=Region("mouth", feather_px=4),
        frame=(5, 0, 30, 30),
        generator="avatar",
        output="webp",
        lossless=True,
    )
    assert result.image.tobytes() == FACE.tobytes()
    assert result.max_difference_outside == 0
    assert result.mean_difference_inside == 12.5
    assert result.region_share == 0.25
    assert result.latent_token == b"edited"
    assert result.models[0].name == "avatar-synthesis"
    assert dict(result.timings) == {"encoder": 4.5, "decode": 1.0}  # two runs of a stage add up
    (request,) = fake.requests
    assert [(e.direction.name, e.direction.strength) for e in request.edits] == [
        ("smile", 1.0),
        ("glasses", -0.5),
    ]
    assert request.region.parts[0].class_name == "mouth"
    assert request.region.feather_px == 4
    assert (request.frame.x, request.frame.width) == (5, 30)
    assert request.generator == "avatar"
    assert request.output.lossless


def test_edit_by_token_alone_has_no_figures(fake: Any, call: Call) -> None:
    result = call("edit_image", edits=[Direction("smile")], latent_token=b"abc")
    assert result.change is None
    assert result.max_difference_outside is None
    assert fake.requests[0].latent_token == b"abc"
    assert not fake.requests[0].HasField("image")


def test_nothing_to_edit_is_refused_before_sending(fake: Any, call: Call) -> None:
    with pytest.raises(InvalidArgument, match="image: give an image, a latent token, or both"):
        call("edit_image", edits={"smile": 1.0})
    assert fake.requests == []


def test_stylize(fake: Any, call: Call) -> None:
    result = call(
        "stylize", FACE, {"candy": 2.0}, strength=0.0, preserve_color=True, region=(1, 2, 3, 4)
    )
    assert result.image.size == FACE.size
    assert result.tiles == 2
    (request,) = fake.requests
    assert request.HasField("strength")  # 0 is a strength, not "left out"
    assert request.strength == 0
    assert request.preserve_color
    assert request.styles[0].weight == 2
    assert request.region.parts[0].box.width == 3


def test_segment(fake: Any, call: Call) -> None:
    result = call("segment", FACE, with_overlay=True)
    assert result.image.mode == "L"
    assert result.overlay is not None
    assert {a.name: a.pixels for a in result.areas} == {"background": 20, "hair": 4}
    mask = result.mask("hair")
    assert mask.histogram()[255] == 4
    assert mask.getpixel((1, 1)) == 255
    with pytest.raises(KeyError, match="no class beard; there are background, hair"):
        result.mask("hair", "beard")


def test_encode(fake: Any, call: Call) -> None:
    plain = call("encode", FACE)
    assert (plain.latent_token, plain.image, plain.reconstruction_psnr_db) == (b"token", None, None)
    shown = call("encode", FACE, with_reconstruction=True)
    assert shown.reconstruction_psnr_db == 23.5
    assert shown.image.size == (6, 4)


def test_generate(fake: Any, call: Call) -> None:
    samples = call(
        "generate",
        range(1, 4),
        truncation_psi=0.0,
        edits={"smile": 1.0},
        mix_seed=9,
        mix_layers=(4, 8),
    )
    assert [(s.index, s.seed, s.latent_token) for s in samples] == [
        (0, 1, b"w1"),
        (1, 2, b"w2"),
        (2, 3, b"w3"),
    ]
    assert samples[2].image.getpixel((0, 0)) == (3, 0, 0)
    (request,) = fake.requests
    assert request.HasField("truncation_psi")
    assert request.mixing.seed == 9
    assert (request.mixing.layers.start, request.mixing.layers.end) == (4, 8)


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": 2**64}, "seeds"),
        ({"seeds": 1, "mix_seed": 2}, "mixing"),
        ({"seeds": 1, "mix_layers": (0, 4)}, "mixing"),
    ],
)
def test_wrong_samples_are_refused_when_asked_for(kwargs: dict[str, Any], field: str) -> None:
    client = Client("127.0.0.1:1")
    with pytest.raises(InvalidArgument) as caught:
        client.generate(**kwargs)  # not first when the iterator is read
    assert caught.value.violations[0].field == field


def test_catalog(call: Call) -> None:
    catalog = call("list_models")
    assert (catalog.bundle_name, catalog.models[0].role) == ("avatars", "synthesis")
    assert catalog.models[0].figures[0].value == 23.25
    assert catalog.generators[0].num_ws == 12
    (direction,) = call("list_directions", "avatar")
    assert (direction.name, direction.layers, direction.regions) == ("smile", (2, 8), ("mouth",))
    assert call("list_styles")[0].name == "night-city"
    assert [(c.index, c.name) for c in call("list_region_classes")] == [(6, "mouth")]


def test_health(fake: Any, call: Call) -> None:
    assert call("health") is HealthStatus.SERVING
    fake.status = health_pb2.HealthCheckResponse.NOT_SERVING
    assert call("health", "velatura.v1.EditService") is HealthStatus.NOT_SERVING
    assert fake.requests[-1].service == "velatura.v1.EditService"
    fake.behaviours["Check"] = lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "?")
    assert call("health", "nobody") is HealthStatus.SERVICE_UNKNOWN


def test_wait_ready_waits_until_serving(fake: Any, call: Call) -> None:
    fake.status = health_pb2.HealthCheckResponse.NOT_SERVING

    def serve_from_the_third(_: Any, __: Any) -> None:
        if len(fake.requests) >= 3:
            fake.status = health_pb2.HealthCheckResponse.SERVING

    fake.behaviours["Check"] = serve_from_the_third
    call("wait_ready", 10.0)
    assert len(fake.requests) == 3


def test_wait_ready_gives_up(fake: Any, call: Call) -> None:
    fake.status = health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(DeadlineExceeded, match=r"not ready within 0.3 s; last seen: NOT_SERVING"):
        call("wait_ready", 0.3)


def test_saving_a_result(fake: Any, tmp_path: Any) -> None:
    buffer = io.BytesIO()
    FACE.save(buffer, "PNG")
    with Client(fake.target) as client:
        client.edit_image(buffer.getvalue(), "smile").save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == buffer.getvalue()
