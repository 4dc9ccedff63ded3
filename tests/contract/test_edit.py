"""EditService on a real server: what comes back, where it may differ from the input, and tokens."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from velatura.v1 import catalog_pb2, edit_pb2, edit_pb2_grpc, image_pb2, region_pb2

from ..running import file_of, opened, picture, png, samples

Stub = edit_pb2_grpc.EditServiceStub


def along(direction: str, strength: float = 1.0) -> edit_pb2.Edit:
    return edit_pb2.Edit(direction=edit_pb2.DirectionEdit(name=direction, strength=strength))


def offset(value: float = 0.5, start: int = 4, end: int = 12) -> edit_pb2.Edit:
    layers = edit_pb2.LayerRange(start=start, end=end)
    return edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[value]))


def box(x: int, y: int, width: int, height: int) -> region_pb2.RegionPart:
    return region_pb2.RegionPart(box=region_pb2.Box(x=x, y=y, width=width, height=height))


@pytest.mark.parametrize(
    "size", [(128, 128), (64, 64), (301, 200), (90, 400), (1500, 1000), (1, 1)]
)
def test_the_answer_has_the_inputs_size_format_and_provenance(
    editing: Stub,
    direction: str,
    models: catalog_pb2.ListModelsResponse,
    size: tuple[int, int],
) -> None:
    request = edit_pb2.EditImageRequest(image=png(*size), edits=[along(direction), offset()])
    answer = editing.EditImage(request)

    image = opened(answer.image)
    assert image.size == size
    assert image.format == "PNG"
    hashes = {each.entry.name: each.entry.sha256 for each in models.models}
    generator = models.generators[0]
    assert {each.name: each.sha256 for each in answer.models} == {
        name: hashes[name] for name in (generator.encoder, generator.synthesis)
    }
    stages = [each.stage for each in answer.timings]
    assert {"decode", "encoder", "generator", "composite", "encode"} <= set(stages)
    assert all(each.milliseconds >= 0 for each in answer.timings)
    assert answer.latent_token


@pytest.mark.parametrize("size", [(128, 128), (400, 260), (70, 300)])
def test_nothing_changes_outside_a_mask(editing: Stub, size: tuple[int, int]) -> None:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse([size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2], fill=255)
    part = region_pb2.RegionPart(mask=image_pb2.Image(encoded=file_of(mask)))
    request = edit_pb2.EditImageRequest(
        image=png(*size), edits=[offset(1.0)], region=region_pb2.Region(parts=[part], feather_px=5)
    )
    answer = editing.EditImage(request)

    difference = np.abs(samples(answer.image) - np.asarray(picture(*size)).astype(np.int16))
    inside = np.asarray(mask) >= 128
    assert difference[~inside].max() == 0
    assert difference[inside].max() > 0
    assert answer.change.max_difference_outside == 0
    assert answer.change.mean_difference_inside == pytest.approx(
        difference[inside].mean(), rel=1e-4
    )
    assert answer.change.region_share == pytest.approx(inside.mean(), rel=1e-5)


def test_a_class_region_is_the_segmenters(
    editing: Stub, segmenting: object, classes: list[str]
) -> None:
    from velatura.v1 import segment_pb2

    image = png(200, 128, seed=4)
    found = segmenting.Segment(segment_pb2.SegmentRequest(image=image))  # type: ignore[attr-defined]
    labels = np.asarray(opened(found.label_map))
    present = int(np.bincount(labels.ravel()).argmax())
    region = region_pb2.Region(parts=[region_pb2.RegionPart(class_name=classes[present])])
    answer = editing.EditImage(
        edit_pb2.EditImageRequest(image=image, edits=[offset(1.0)], region=region)
    )
    assert answer.change.region_share == pytest.approx((labels == present).mean(), rel=1e-5)
    difference = np.abs(samples(answer.image) - np.asarray(picture(200, 128, 4)).astype(np.int16))
    assert difference[labels != present].sum() == 0


def test_a_click_takes_the_connected_area_around_it(editing: Stub, classes: list[str]) -> None:
    part = region_pb2.RegionPart(click=region_pb2.Point(x=5, y=5))
    request = edit_pb2.EditImageRequest(
        image=png(64, 64), edits=[offset()], region=region_pb2.Region(parts=[part])
    )
    answer = editing.EditImage(request)
    assert 0 < answer.change.region_share <= 1
    assert "avatar-segmenter" in {each.name for each in answer.models}


def test_strength_zero_changes_nothing(editing: Stub, direction: str) -> None:
    request = edit_pb2.EditImageRequest(image=png(150, 150), edits=[along(direction, 0.0)])
    answer = editing.EditImage(request)
    assert np.array_equal(samples(answer.image), np.asarray(picture(150, 150)))


def test_edits_are_applied_in_order_and_add_up(editing: Stub) -> None:
    image = png(128, 128)
    once = editing.EditImage(edit_pb2.EditImageRequest(image=image, edits=[offset(0.6)]))
    twice = editing.EditImage(
        edit_pb2.EditImageRequest(image=image, edits=[offset(0.2), offset(0.4)])
    )
    undone = editing.EditImage(
        edit_pb2.EditImageRequest(image=image, edits=[offset(0.6), offset(-0.6)])
    )
    assert np.abs(samples(once.image) - samples(twice.image)).max() <= 1
    assert np.abs(samples(undone.image) - np.asarray(picture(128, 128)).astype(np.int16)).max() <= 1


def test_a_token_spares_the_encoder_and_gives_the_same_image(editing: Stub, direction: str) -> None:
    image = png(180, 180, seed=2)
    token = editing.Encode(edit_pb2.EncodeRequest(image=image)).latent_token
    edits = [along(direction, 2.0)]
    direct = editing.EditImage(edit_pb2.EditImageRequest(image=image, edits=edits))
    spared = editing.EditImage(
        edit_pb2.EditImageRequest(image=image, latent_token=token, edits=edits)
    )
    assert "encoder" not in {each.stage for each in spared.timings}
    assert np.abs(samples(direct.image) - samples(spared.image)).max() <= 1
    assert spared.latent_token == direct.latent_token


def test_a_token_alone_is_decoded_at_the_generators_size(
    editing: Stub, models: catalog_pb2.ListModelsResponse
) -> None:
    token = editing.Encode(edit_pb2.EncodeRequest(image=png(300, 300))).latent_token
    answer = editing.EditImage(edit_pb2.EditImageRequest(latent_token=token, edits=[offset()]))
    size = models.generators[0].resolution
    assert opened(answer.image).size == (size, size)
    assert not answer.HasField("change")


def test_the_answers_token_is_of_the_edited_latents(editing: Stub) -> None:
    token = editing.Encode(edit_pb2.EncodeRequest(image=png(128, 128))).latent_token
    first = editing.EditImage(edit_pb2.EditImageRequest(latent_token=token, edits=[offset(0.3)]))
    again = editing.EditImage(
        edit_pb2.EditImageRequest(latent_token=first.latent_token, edits=[offset(0.3)])
    )
    both = editing.EditImage(edit_pb2.EditImageRequest(latent_token=token, edits=[offset(0.6)]))
    assert np.abs(samples(again.image) - samples(both.image)).max() <= 1


@pytest.mark.parametrize("source", ["image", "token"])
def test_a_full_reference_gives_the_references_latents(editing: Stub, source: str) -> None:
    other = png(128, 128, seed=9)
    token = editing.Encode(edit_pb2.EncodeRequest(image=other)).latent_token
    reference = (
        edit_pb2.ReferenceEdit(image=other, strength=1)
        if source == "image"
        else edit_pb2.ReferenceEdit(latent_token=token, strength=1)
    )
    answer = editing.EditImage(
        edit_pb2.EditImageRequest(image=png(128, 128), edits=[edit_pb2.Edit(reference=reference)])
    )
    assert latents(answer.latent_token) == pytest.approx(latents(token), abs=2e-3)


def test_a_references_layers_limit_what_is_taken(editing: Stub) -> None:
    own = editing.Encode(edit_pb2.EncodeRequest(image=png(128, 128))).latent_token
    other = editing.Encode(edit_pb2.EncodeRequest(image=png(128, 128, seed=9))).latent_token
    reference = edit_pb2.ReferenceEdit(
        latent_token=other, strength=0.5, layers=edit_pb2.LayerRange(start=0, end=4)
    )
    answer = editing.EditImage(
        edit_pb2.EditImageRequest(latent_token=own, edits=[edit_pb2.Edit(reference=reference)])
    )
    mine, theirs, mixed = (
        latents(each).reshape(12, -1) for each in (own, other, answer.latent_token)
    )
    assert mixed[:4] == pytest.approx((mine[:4] + theirs[:4]) / 2, abs=1e-4)
    assert np.array_equal(mixed[4:], mine[4:])


def latents(token: bytes) -> np.ndarray:  # type: ignore[type-arg]
    """The float32 payload between a token's head (17 bytes) and its checksum (8 bytes)."""
    return np.frombuffer(token[17:-8], "<f4")


def test_only_the_frame_is_edited(editing: Stub) -> None:
    frame = region_pb2.Box(x=30, y=10, width=64, height=64)
    request = edit_pb2.EditImageRequest(image=png(200, 120), edits=[offset(1.0)], frame=frame)
    answer = editing.EditImage(request)
    difference = np.abs(samples(answer.image) - np.asarray(picture(200, 120)).astype(np.int16))
    assert difference[10:74, 30:94].max() > 0
    difference[10:74, 30:94] = 0
    assert difference.max() == 0


def test_alpha_passes_through(editing: Stub) -> None:
    sent = picture(100, 80, alpha=True)
    request = edit_pb2.EditImageRequest(
        image=image_pb2.Image(encoded=file_of(sent)), edits=[offset(1.0)]
    )
    answer = editing.EditImage(request)
    image = opened(answer.image)
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image)[..., 3], np.asarray(sent)[..., 3])


@pytest.mark.parametrize(
    ("options", "format_", "kind"),
    [
        ({}, "JPEG", "JPEG"),
        ({"format": image_pb2.IMAGE_FORMAT_PNG}, "JPEG", "PNG"),
        ({"format": image_pb2.IMAGE_FORMAT_WEBP, "lossless": True}, "PNG", "WEBP"),
        ({}, "WEBP", "WEBP"),
    ],
)
def test_the_output_is_the_inputs_format_unless_asked_otherwise(
    editing: Stub, options: dict[str, object], format_: str, kind: str
) -> None:
    image = image_pb2.Image(encoded=file_of(picture(64, 48), format_))
    request = edit_pb2.EditImageRequest(
        image=image,
        edits=[offset()],
        output=image_pb2.OutputOptions(**options),  # type: ignore[arg-type]
    )
    assert opened(editing.EditImage(request).image).format == kind


def test_raw_samples_in_and_out(editing: Stub) -> None:
    sent = np.asarray(picture(40, 30))
    raw = image_pb2.RawImage(width=40, height=30, channels=3, data=sent.tobytes())
    request = edit_pb2.EditImageRequest(
        image=image_pb2.Image(raw=raw),
        edits=[offset(1.0)],
        region=region_pb2.Region(parts=[box(0, 0, 10, 30)]),
    )
    answer = editing.EditImage(request)
    got = answer.image.raw
    assert (got.width, got.height, got.channels) == (40, 30, 3)
    array = np.frombuffer(got.data, np.uint8).reshape(30, 40, 3)
    assert np.array_equal(array[:, 10:], sent[:, 10:])
    assert not np.array_equal(array, sent)


def test_the_same_request_gives_the_same_bytes(editing: Stub, direction: str) -> None:
    request = edit_pb2.EditImageRequest(image=png(128, 128), edits=[along(direction)])
    assert editing.EditImage(request).image == editing.EditImage(request).image


def test_encode_reconstructs_and_measures(
    editing: Stub, models: catalog_pb2.ListModelsResponse
) -> None:
    size = models.generators[0].resolution
    answer = editing.Encode(edit_pb2.EncodeRequest(image=png(size, size), with_reconstruction=True))
    difference = samples(answer.reconstruction) - np.asarray(picture(size, size)).astype(np.float64)
    psnr = 10 * np.log10(255**2 / np.square(difference).mean())
    assert answer.reconstruction_psnr_db == pytest.approx(psnr, abs=0.05)


def test_encode_without_reconstruction_runs_no_generator(editing: Stub) -> None:
    answer = editing.Encode(edit_pb2.EncodeRequest(image=png(100, 100)))
    assert not answer.HasField("reconstruction")
    assert [each.name for each in answer.models] == ["avatar-encoder"]


def test_in_a_batch_or_alone_the_image_is_the_same(editing: Stub, direction: str) -> None:
    requests = [
        edit_pb2.EditImageRequest(image=png(128, 128, seed), edits=[along(direction, 2.0)])
        for seed in range(8)
    ]
    alone = [editing.EditImage(request) for request in requests]
    together = [call.result() for call in [editing.EditImage.future(each) for each in requests]]
    for one, other in zip(alone, together, strict=True):
        assert np.abs(samples(one.image) - samples(other.image)).max() <= 1
