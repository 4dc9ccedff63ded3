"""Both Python clients against a real server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from velatura.client import (
    NO_RETRY,
    AsyncClient,
    Client,
    DeadlineExceeded,
    HealthStatus,
    Offset,
    Reference,
    Region,
    Subtract,
    VelaturaError,
)

from ..running import RunningServer

IMAGES = Path(__file__).parents[2] / "examples" / "images"
Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, server: RunningServer) -> Call:
    """`call(method, …)` through a client of either kind; streams come back as lists."""

    async def through_async(method: str, *args: Any, **kwargs: Any) -> Any:
        async with AsyncClient(server.address, timeout=120) as client:
            result = getattr(client, method)(*args, **kwargs)
            if method == "generate":
                return [sample async for sample in result]
            return await result

    def call(method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            return asyncio.run(through_async(method, *args, **kwargs))
        with Client(server.address, timeout=120) as client:
            result = getattr(client, method)(*args, **kwargs)
            return list(result) if method == "generate" else result

    return call


@pytest.fixture(scope="module")
def face() -> Image.Image:
    with Image.open(IMAGES / "sven.png") as image:
        return image.convert("RGB")  # 720×540


def differs(a: Image.Image, b: Image.Image) -> tuple[int, int, int, int] | None:
    """Bounding box of what differs."""
    return ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getbbox()


def test_a_boxed_edit_changes_the_box_alone(call: Call, direction: str, face: Image.Image) -> None:
    result = call("edit_image", face, {direction: 2.0}, region=(300, 200, 80, 60))
    assert result.image.size == face.size
    assert result.max_difference_outside == 0
    assert result.mean_difference_inside > 0
    assert result.region_share == pytest.approx(80 * 60 / (720 * 540), rel=1e-6)
    changed = differs(result.image, face)
    assert changed is not None
    left, top, right, bottom = changed
    assert (left, top) >= (300, 200)
    assert right <= 380
    assert bottom <= 260
    assert result.latent_token
    assert result.models
    assert all(len(m.sha256) == 64 for m in result.models)
    assert all(ms >= 0 for ms in result.timings.values())


def test_regions_of_every_kind(call: Call, direction: str, face: Image.Image) -> None:
    classes = [c.name for c in call("list_region_classes")]
    mask = Image.new("L", face.size, 0)
    mask.paste(255, (310, 150, 400, 240))
    region = Region(
        classes[0], mask, (0, 0, 5, 5), Subtract((320, 160, 20, 20)), grow_px=2, feather_px=3
    )
    result = call("edit_image", face, {direction: 1.0}, region=region)
    assert result.max_difference_outside == 0
    inverted = call("edit_image", face, {direction: 1.0}, region=Region(mask, invert=True))
    assert inverted.region_share == pytest.approx(1 - 90 * 90 / (720 * 540), rel=1e-6)


def test_encode_once_edit_many(call: Call, direction: str) -> None:
    path = IMAGES / "rowan.png"
    encoded = call("encode", path, with_reconstruction=True)
    assert encoded.reconstruction_psnr_db > 0
    assert encoded.image.width == encoded.image.height
    with_token = call("edit_image", path, {direction: 1.0}, latent_token=encoded.latent_token)
    without = call("edit_image", path, {direction: 1.0})
    # The same but for what batching and rounding may do.
    assert max(high for _, high in _extrema(with_token.image, without.image)) <= 1
    alone = call("edit_image", edits=[Offset((8, 12), 0.5)], latent_token=encoded.latent_token)
    assert alone.change is None
    assert alone.image.size == encoded.image.size


def test_a_reference_of_full_strength_replaces_the_latents(call: Call) -> None:
    other = call("encode", IMAGES / "noor.png", with_reconstruction=True)
    own = call("encode", IMAGES / "rowan.png")
    replaced = call(
        "edit_image",
        edits=Reference(latent_token=other.latent_token),
        latent_token=own.latent_token,
        output="png",
    )
    assert max(high for _, high in _extrema(replaced.image, other.image)) <= 1


def test_stylize_in_a_mask(call: Call, styles: list[str]) -> None:
    with Image.open(IMAGES / "dandelions.jpg") as photograph:
        content = photograph.resize((160, 90))
    mask = Image.new("1", content.size)
    mask.paste(1, (40, 20, 100, 70))
    mix = {styles[0]: 2.0, styles[1]: 1.0}
    result = call("stylize", content, mix, strength=0.7, preserve_color=True, region=mask)
    assert result.image.size == (160, 90)
    assert result.max_difference_outside == 0
    changed = differs(result.image, content)
    assert changed is not None
    assert changed[0] >= 40
    assert changed[1] >= 20
    assert changed[2] <= 100
    assert changed[3] <= 70


def test_stylize_by_example(call: Call) -> None:
    with Image.open(IMAGES / "dandelions.jpg") as photograph:
        content = photograph.resize((96, 54))
    result = call("stylize", content, IMAGES / "brushes.jpg")
    assert differs(result.image, content) is not None
    untouched = call("stylize", content, IMAGES / "brushes.jpg", strength=0.0)
    assert differs(untouched.image, content) is None


def test_segment(call: Call, face: Image.Image) -> None:
    result = call("segment", face, with_overlay=True)
    assert result.image.size == face.size
    assert result.image.mode == "L"
    assert result.overlay.size == face.size
    assert sum(a.pixels for a in result.areas) == 720 * 540
    histogram = result.image.histogram()
    assert all(histogram[a.index] == a.pixels for a in result.areas)
    largest = max(result.areas, key=lambda a: a.pixels)
    assert result.mask(largest.name).histogram()[255] == largest.pixels


def test_generate_is_reproducible(call: Call, direction: str) -> None:
    first = call("generate", [3, 1, 4])
    assert [(s.index, s.seed) for s in first] == [(0, 3), (1, 1), (2, 4)]
    again = call("generate", 4)[0]
    assert max(high for _, high in _extrema(first[2].image, again.image)) <= 1
    mixed = call("generate", 4, mix_seed=9, mix_layers=(4, 12), edits={direction: 1.0})[0]
    assert differs(mixed.image, again.image) is not None
    assert mixed.latent_token


def test_catalog_and_health(call: Call, direction: str) -> None:
    catalog = call("list_models")
    assert all(m.ready and m.provider == "CPUExecutionProvider" for m in catalog.models)
    assert len(catalog.manifest_sha256) == 64
    assert direction in [d.name for d in call("list_directions")]
    assert call("health") is HealthStatus.SERVING
    assert call("health", "velatura.v1.EditService") is HealthStatus.SERVING
    assert call("health", "velatura.v1.Nobody") is HealthStatus.SERVICE_UNKNOWN
    call("wait_ready", 10.0)


@pytest.mark.parametrize("output", ["png", "jpeg", "webp", "raw"])
def test_output_formats(call: Call, direction: str, output: Any) -> None:
    result = call("edit_image", IMAGES / "rowan.png", {direction: 1.0}, output=output, quality=90)
    assert result.picture.format == output
    assert result.image.size == (512, 512)


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "field"),
    [
        ("edit_image", [{"sorcery": 1.0}], {}, "edits[0].direction.name"),
        ("edit_image", [{}], {}, "edits"),
        ("edit_image", [{"smile": 11.0}], {}, "edits[0].direction.strength"),
        ("edit_image", [{"smile": 1.0}], {"region": "tail"}, "region.parts[0].class_name"),
        (
            "edit_image",
            [{"smile": 1.0}],
            {"region": Image.new("L", (7, 7), 255)},
            "region.parts[0].mask",
        ),
        ("edit_image", [{"smile": 1.0}], {"generator": "nobody"}, "generator"),
        ("stylize", ["no-such-style"], {}, "styles[0].preset"),
        ("segment", [], {"model": "nobody"}, "model"),
    ],
)
def test_refusals_name_the_field(
    call: Call, method: str, args: list[Any], kwargs: dict[str, Any], field: str
) -> None:
    with pytest.raises(VelaturaError) as caught:
        call(method, IMAGES / "rowan.png", *args, **kwargs)
    assert [v.field for v in caught.value.violations] == [field]
    assert field in str(caught.value)
    assert caught.value.request_id
    assert caught.value.reason


def test_a_short_deadline_ends_in_time(server: RunningServer, styles: list[str]) -> None:
    with Client(server.address, retry=NO_RETRY) as client:
        with pytest.raises(VelaturaError) as caught:
            client.stylize(IMAGES / "mountains.jpg", styles[0], timeout=0.3)
        # Refused at once by a server that sees it cannot be kept, or run out on the way.
        assert isinstance(caught.value, DeadlineExceeded) or caught.value.retry_after is not None
        assert client.health() is HealthStatus.SERVING


async def test_concurrent_callers_get_their_own(server: RunningServer, direction: str) -> None:
    faces = [Image.new("RGB", (64, 64), (8 * i, 255 - 8 * i, 100)) for i in range(24)]
    async with AsyncClient(server.address, timeout=120) as client:
        results = await asyncio.gather(
            *(client.edit_image(f, {direction: 1.0}, region=(0, 0, 8, 8)) for f in faces)
        )
    for face, result in zip(faces, results, strict=True):
        assert result.image.crop((8, 8, 64, 64)).tobytes() == face.crop((8, 8, 64, 64)).tobytes()


def test_files_keep_their_format(server: RunningServer, direction: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(buffer, "WEBP", lossless=True)
    with Client(server.address, timeout=120) as client:
        assert client.edit_image(buffer.getvalue(), {direction: 1.0}).picture.format == "webp"


def _extrema(a: Image.Image, b: Image.Image) -> list[tuple[int, int]]:
    """(least, largest) difference of each channel."""
    return ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getextrema()  # type: ignore[return-value]
