"""StyleService on a real server: presets, pictures, mixes, strength, colour, regions, any size."""

from __future__ import annotations

import numpy as np
import pytest

from velatura.v1 import region_pb2, stylize_pb2, stylize_pb2_grpc

from ..running import file_of, opened, picture, png, samples

Stub = stylize_pb2_grpc.StyleServiceStub


def preset(name: str, weight: float = 0) -> stylize_pb2.StyleSource:
    return stylize_pb2.StyleSource(preset=name, weight=weight)


def painting(seed: int = 7, weight: float = 0) -> stylize_pb2.StyleSource:
    return stylize_pb2.StyleSource(image=png(300, 220, seed), weight=weight)


def sent(width: int, height: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(picture(width, height)).astype(np.int16)


@pytest.mark.parametrize("size", [(128, 128), (257, 130), (5, 9), (1, 1), (16, 300)])
@pytest.mark.parametrize("kind", ["preset", "picture", "both"])
def test_any_size_comes_back_as_it_was(
    styling: Stub, styles: list[str], size: tuple[int, int], kind: str
) -> None:
    chosen = {"preset": [preset(styles[0])], "picture": [painting()]}
    chosen["both"] = [*chosen["preset"], *chosen["picture"]]
    answer = styling.Stylize(stylize_pb2.StylizeRequest(content=png(*size), styles=chosen[kind]))
    assert opened(answer.image).size == size
    assert answer.change.mean_difference_inside > 1
    expected = {
        "preset": {"style-presets"},
        "picture": {"style-predictor", "style-transformer"},
    }
    expected["both"] = expected["preset"] | expected["picture"]
    assert {each.name for each in answer.models} == expected[kind]


def test_strength_zero_returns_the_content(styling: Stub, styles: list[str]) -> None:
    for style in (preset(styles[0]), painting()):
        request = stylize_pb2.StylizeRequest(content=png(120, 90), styles=[style], strength=0)
        request.preserve_color = True
        answer = styling.Stylize(request)
        assert np.array_equal(samples(answer.image), sent(120, 90))
        assert answer.tiles == 0


def test_strength_grows_without_jumps(styling: Stub, styles: list[str]) -> None:
    for style in (preset(styles[0]), painting()):
        changes = []
        for strength in (0.0, 0.02, 0.25, 0.5, 1.0):
            request = stylize_pb2.StylizeRequest(
                content=png(128, 128), styles=[style], strength=strength
            )
            changes.append(styling.Stylize(request).change.mean_difference_inside)
        assert changes[0] == 0
        assert 0 < changes[1] < 0.25 * changes[-1], "a little strength makes a little change"
        assert changes[1] < changes[2]


def test_full_strength_is_the_default(styling: Stub, styles: list[str]) -> None:
    request = stylize_pb2.StylizeRequest(content=png(96, 96), styles=[preset(styles[2])])
    default = styling.Stylize(request)
    request.strength = 1
    assert np.array_equal(samples(default.image), samples(styling.Stylize(request).image))


def test_styles_differ_and_weights_shift_between_them(styling: Stub, styles: list[str]) -> None:
    def painted(*sources: stylize_pb2.StyleSource) -> np.ndarray:  # type: ignore[type-arg]
        request = stylize_pb2.StylizeRequest(content=png(128, 128), styles=sources)
        return samples(styling.Stylize(request).image).astype(np.float64)

    for first, second in (
        (preset(styles[0]), preset(styles[5])),
        (painting(1), painting(2)),
        (preset(styles[0]), painting(1)),
    ):
        one, other = painted(first), painted(second)
        assert np.abs(one - other).mean() > 2
        first.weight, second.weight = 3, 1
        mixed = painted(first, second)
        assert np.abs(mixed - one).mean() < np.abs(mixed - other).mean()
        first.weight, second.weight = 300, 100
        assert np.abs(painted(first, second) - mixed).max() <= 1, "weights are relative"


def test_preserved_colour_keeps_the_contents_chroma(styling: Stub, styles: list[str]) -> None:
    request = stylize_pb2.StylizeRequest(
        content=png(128, 128), styles=[preset(styles[1])], preserve_color=True
    )
    got, content = samples(styling.Stylize(request).image), sent(128, 128)
    middle = ((got > 0) & (got < 255)).all(axis=2)  # what was clipped cannot keep its chroma
    for channel in (0, 2):  # blue and red minus green: chroma in its plainest form
        before = content[..., channel] - content[..., 1]
        after = got[..., channel] - got[..., 1]
        assert np.abs(before - after)[middle].max() <= 1
    assert not np.array_equal(got, content)


def test_a_region_limits_the_style(styling: Stub, styles: list[str]) -> None:
    box = region_pb2.Box(x=20, y=10, width=50, height=40)
    region = region_pb2.Region(parts=[region_pb2.RegionPart(box=box)], feather_px=3)
    for style in (preset(styles[0]), painting()):
        request = stylize_pb2.StylizeRequest(content=png(160, 100), styles=[style], region=region)
        answer = styling.Stylize(request)
        difference = np.abs(samples(answer.image) - sent(160, 100))
        assert difference[10:50, 20:70].max() > 0
        difference[10:50, 20:70] = 0
        assert difference.max() == 0
        assert answer.change.max_difference_outside == 0


@pytest.mark.parametrize("kind", ["preset", "picture"])
def test_large_images_are_tiled_without_seams(styling: Stub, styles: list[str], kind: str) -> None:
    style = preset(styles[0]) if kind == "preset" else painting()
    answer = styling.Stylize(stylize_pb2.StylizeRequest(content=png(1000, 500), styles=[style]))
    assert opened(answer.image).size == (1000, 500)
    assert answer.tiles == 2
    # A seam would be a column whose step is far above its neighbours' over the whole height.
    grey = samples(answer.image).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    middle = steps[300:700]
    assert middle.max() < 3 * np.median(middle) + 2


def test_alpha_passes_through(styling: Stub, styles: list[str]) -> None:
    image = picture(64, 64, alpha=True)
    content = png(64, 64, alpha=True)
    answer = styling.Stylize(
        stylize_pb2.StylizeRequest(content=content, styles=[preset(styles[0])])
    )
    assert np.array_equal(samples(answer.image)[..., 3], np.asarray(image)[..., 3])


def test_a_model_of_the_right_kind_may_be_named(styling: Stub, styles: list[str]) -> None:
    request = stylize_pb2.StylizeRequest(
        content=png(64, 64), styles=[preset(styles[0])], model="style-presets"
    )
    assert styling.Stylize(request).models[0].name == "style-presets"


def test_a_jpeg_comes_back_as_a_jpeg(styling: Stub, styles: list[str]) -> None:
    request = stylize_pb2.StylizeRequest(styles=[preset(styles[0])])
    request.content.encoded = file_of(picture(80, 60), "JPEG", quality=90)
    assert opened(styling.Stylize(request).image).format == "JPEG"
