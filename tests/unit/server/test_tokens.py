"""Latent tokens: what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from velatura.server.pipelines.errors import InvalidRequest, TokenOfAnotherModel
from velatura.server.rpc.tokens import CHECK_BYTES, read_token, write_token

from .fakes import GENERATOR, NUM_WS, W_DIM

SHA = "0123456789abcdef" * 4
numbers = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(arrays(np.float32, (NUM_WS, W_DIM), elements=numbers))
def test_latents_come_back_bit_for_bit(latents: np.ndarray) -> None:  # type: ignore[type-arg]
    token = write_token(latents, SHA)
    assert np.array_equal(read_token(token, GENERATOR, SHA), latents)
    assert read_token(token, GENERATOR, SHA.upper()).flags.writeable


@settings(deadline=None)
@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    token = write_token(np.ones((NUM_WS, W_DIM), np.float32), SHA)
    bit = data.draw(st.integers(0, 8 * len(token) - 1))
    damaged = bytearray(token)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidRequest, match="damaged"):
        read_token(bytes(damaged), GENERATOR, SHA)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(token: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_token(token, GENERATOR, SHA, "edits[0].reference.latent_token")


def test_another_models_token_names_both_hashes() -> None:
    token = write_token(np.ones((NUM_WS, W_DIM), np.float32), "f" * 64)
    with pytest.raises(TokenOfAnotherModel) as raised:
        read_token(token, GENERATOR, SHA)
    assert raised.value.made_by == "f" * 32
    assert raised.value.wanted == SHA[:32]


def test_latents_of_another_shape_are_refused() -> None:
    token = write_token(np.ones((NUM_WS + 1, W_DIM), np.float32), SHA)
    with pytest.raises(InvalidRequest, match="damaged"):
        read_token(token, GENERATOR, SHA)


def test_a_later_versions_token_is_named_as_such() -> None:
    body = bytes([2]) + write_token(np.ones((NUM_WS, W_DIM), np.float32), SHA)[1:-CHECK_BYTES]
    with pytest.raises(InvalidRequest, match="version 2"):
        read_token(body + blake3(body).digest(length=CHECK_BYTES), GENERATOR, SHA)
