"""API keys: optional, read once from a file with one key a line."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from velatura.server.rpc.errors import Unauthenticated

HEADER = "authorization"
SCHEME = "bearer "


class KeyRing:
    """The keys that are let in; everybody when there are none."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        # Hashed, so that comparisons are of one length and a memory dump does not show the keys.
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @classmethod
    def read(cls, path: Path | None) -> KeyRing:
        """The keys of a file; blank lines and lines that start with '#' are passed over."""
        if path is None:
            return cls()
        lines = (line.strip() for line in path.read_text().splitlines())
        return cls(line for line in lines if line and not line.startswith("#"))

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
        """The digest of the known key that the metadata has as `authorization: Bearer KEY`, or
        `Unauthenticated`; b"" where everybody is let in."""
        if not self._digests:
            return b""
        given = next((value for key, value in metadata if key.lower() == HEADER), "")
        text = given.decode(errors="replace") if isinstance(given, bytes) else given
        if not text.lower().startswith(SCHEME):
            raise Unauthenticated(
                "This server wants an API key: send the metadata 'authorization: Bearer KEY'."
            )
        digest = hashlib.sha256(text[len(SCHEME) :].strip().encode()).digest()
        # Every key is compared, so that the time tells nothing.
        if sum(hmac.compare_digest(digest, known) for known in self._digests) == 0:
            raise Unauthenticated("The API key is not known. Ask the server's operator for one.")
        return digest
