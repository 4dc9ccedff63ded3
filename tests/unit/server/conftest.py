from __future__ import annotations

from collections.abc import Iterator

import pytest

from velatura.server.pipelines.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()
