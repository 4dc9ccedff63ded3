"""Sync and asyncio clients of a Velatura server.

    from velatura.client import Client

    with Client("localhost:8500") as client:
        result = client.edit_image("face.png", edits={"smile": 1.0}, region="mouth")
        result.image.save("smiling.png")

`Client` and `AsyncClient` have the same methods. Names are loaded when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velatura.client.async_client import AsyncClient
    from velatura.client.channel import NO_RETRY, Keepalive, Retry, Tls
    from velatura.client.edits import Direction, Offset, Reference, Style
    from velatura.client.errors import (
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        VelaturaError,
        Violation,
    )
    from velatura.client.regions import Box, Click, Region, Subtract
    from velatura.client.results import (
        Catalog,
        ChangeReport,
        DirectionInfo,
        EditResult,
        EncodeResult,
        HealthStatus,
        ModelInfo,
        RegionClass,
        Sample,
        SegmentResult,
        StyleInfo,
        StylizeResult,
    )
    from velatura.client.sync_client import Client

__all__ = [
    "NO_RETRY",
    "AsyncClient",
    "Box",
    "Cancelled",
    "Catalog",
    "ChangeReport",
    "Click",
    "Client",
    "DeadlineExceeded",
    "Direction",
    "DirectionInfo",
    "EditResult",
    "EncodeResult",
    "FailedPrecondition",
    "HealthStatus",
    "Internal",
    "InvalidArgument",
    "Keepalive",
    "ModelInfo",
    "NotFound",
    "Offset",
    "PermissionDenied",
    "Reference",
    "Region",
    "RegionClass",
    "ResourceExhausted",
    "Retry",
    "Sample",
    "SegmentResult",
    "Style",
    "StyleInfo",
    "StylizeResult",
    "Subtract",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "VelaturaError",
    "Violation",
]

_HOMES = {
    "sync_client": ("Client",),
    "async_client": ("AsyncClient",),
    "channel": ("NO_RETRY", "Keepalive", "Retry", "Tls"),
    "edits": ("Direction", "Offset", "Reference", "Style"),
    "regions": ("Box", "Click", "Region", "Subtract"),
    "results": (
        "Catalog",
        "ChangeReport",
        "DirectionInfo",
        "EditResult",
        "EncodeResult",
        "HealthStatus",
        "ModelInfo",
        "RegionClass",
        "Sample",
        "SegmentResult",
        "StyleInfo",
        "StylizeResult",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
