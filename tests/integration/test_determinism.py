"""The same request gives the same bytes, also from another process with the same bundle."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from velatura.client import Client, Direction, Offset, Region

from ..running import RunningServer, picture
from .conftest import Names, client_of

Request = Callable[[Client, Names], list[bytes]]


def edit(client: Client, names: Names) -> list[bytes]:
    edits = [Direction(names.directions[0], 1.5), Offset((3, 9), 0.4)]
    region = Region((10, 20, 90, 70), grow_px=3, feather_px=6)
    result = client.edit_image(picture(150, 110, 5), edits, region=region)
    return [result.picture.data, result.latent_token]


def stylize_by_presets(client: Client, names: Names) -> list[bytes]:
    mix = {names.styles[0]: 1.0, names.styles[-1]: 2.0}
    return [client.stylize(picture(150, 110, 5), mix, strength=0.7).picture.data]


def stylize_by_picture(client: Client, names: Names) -> list[bytes]:
    result = client.stylize(
        picture(150, 110, 5), picture(90, 90, 6), strength=0.7, preserve_color=True, output="jpeg"
    )
    return [result.picture.data]


def segment(client: Client, names: Names) -> list[bytes]:
    result = client.segment(picture(150, 110, 5), with_overlay=True)
    assert result.overlay_picture is not None
    return [result.picture.data, result.overlay_picture.data]


def encode(client: Client, names: Names) -> list[bytes]:
    result = client.encode(picture(150, 110, 5), with_reconstruction=True)
    assert result.reconstruction is not None
    return [result.latent_token, result.reconstruction.data]


def generate(client: Client, names: Names) -> list[bytes]:
    samples = client.generate([11, 12], truncation_psi=0.8, mix_seed=3, mix_layers=(4, 8))
    return [data for sample in samples for data in (sample.picture.data, sample.latent_token)]


REQUESTS = [edit, stylize_by_presets, stylize_by_picture, segment, encode, generate]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
def test_the_same_request_gives_the_same_bytes(
    client: Client, gathering: RunningServer, names: Names, request_: Request
) -> None:
    first = request_(client, names)
    assert all(first)
    assert request_(client, names) == first
    with client_of(gathering) as elsewhere:
        assert request_(elsewhere, names) == first


def test_a_seed_names_an_image_wherever_it_stands_in_the_request(client: Client) -> None:
    together = [sample.image.tobytes() for sample in client.generate([21, 22, 21])]
    (alone,) = client.generate(21)
    # Its own bytes within one request; across requests it may have had other batch-mates.
    assert together[0] == together[2] != together[1]
    pairs = zip(together[0], alone.image.tobytes(), strict=True)
    assert max(abs(one - other) for one, other in pairs) <= 1


def test_seeds_and_psi_make_a_difference(client: Client) -> None:
    def image(seed: int, psi: float) -> bytes:
        (sample,) = client.generate(seed, truncation_psi=psi)
        return sample.image.tobytes()

    assert len({image(1, 1.0), image(2, 1.0), image(1, 0.5), image(1, 0.0)}) == 4
    # psi 0 is one of the centres of truncation: many seeds share them.
    typical = client.generate(range(150), truncation_psi=0.0)
    assert len({sample.image.tobytes() for sample in typical}) < 150
