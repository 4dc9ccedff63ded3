"""Latent tokens: W+ latents as opaque bytes that only the generator that made them accepts.

Layout, little-endian: version (1 byte), SHA-256 of the synthesis network (first 16 bytes), latents
(float32, row by row), BLAKE3 of everything before (first 8 bytes). The checksum finds damage, not
malice: a token holds nothing that its bearer may not know or choose, so it is not signed.
"""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from velatura.server.imaging.picture import F32
from velatura.server.pipelines.errors import InvalidRequest, TokenOfAnotherModel
from velatura.v1.bundle_pb2 import GeneratorEntry

VERSION = 1
HASH_BYTES = 16
CHECK_BYTES = 8
OVERHEAD = 1 + HASH_BYTES + CHECK_BYTES


def write_token(w_plus: F32, synthesis_sha256: str) -> bytes:
    """The token of latents float32 [num_ws, w_dim]."""
    head = bytes([VERSION]) + bytes.fromhex(synthesis_sha256)[:HASH_BYTES]
    body = head + np.ascontiguousarray(w_plus, "<f4").tobytes()
    return body + _checksum(body)


def read_token(
    token: bytes, generator: GeneratorEntry, synthesis_sha256: str, field: str = "latent_token"
) -> F32:
    """The latents float32 [num_ws, w_dim] of a token.

    Raises `InvalidRequest` for a damaged token, `TokenOfAnotherModel` for one of another synthesis
    network.
    """
    if len(token) <= OVERHEAD or token[-CHECK_BYTES:] != _checksum(token[:-CHECK_BYTES]):
        raise _damaged(field, "its checksum does not match.")
    if token[0] != VERSION:
        problem = f"it is of version {token[0]}, this server reads version {VERSION}."
        raise InvalidRequest.of(field, f"{problem} Encode the image again.", "TOKEN_VERSION")
    made_by, wanted = token[1 : 1 + HASH_BYTES].hex(), synthesis_sha256[: 2 * HASH_BYTES].lower()
    if made_by != wanted:
        raise TokenOfAnotherModel(field, made_by, wanted)
    payload = token[1 + HASH_BYTES : -CHECK_BYTES]
    if len(payload) != 4 * generator.num_ws * generator.w_dim:
        raise _damaged(field, f"it holds {len(payload)} bytes of latents.")
    latents = np.frombuffer(payload, "<f4").reshape(generator.num_ws, generator.w_dim)
    if not np.isfinite(latents).all():
        raise _damaged(field, "its latents are not finite numbers.")
    return latents.astype(np.float32)


def _checksum(body: bytes) -> bytes:
    return blake3(body).digest(length=CHECK_BYTES)


def _damaged(field: str, how: str) -> InvalidRequest:
    advice = "Send the bytes that Encode or EditImage gave, unchanged."
    return InvalidRequest.of(field, f"the token is damaged: {how} {advice}", "TOKEN_DAMAGED")
