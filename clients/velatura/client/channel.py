"""How channels are set up: message sizes, retries, keepalive, TLS, metadata."""

from __future__ import annotations

import enum
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import grpc

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
DEFAULT_TIMEOUT_S = 30.0


class _Unset(enum.Enum):
    """Tells "not given, take the client's" from None, which means "no deadline"."""

    UNSET = enum.auto()


UNSET: Final = _Unset.UNSET
Timeout: TypeAlias = "float | _Unset | None"

Options = list[tuple[str, str | int]]


@dataclass(frozen=True)
class Retry:
    """When a call is sent again: only for statuses that promise that nothing was done.

    The wait doubles from `initial_backoff_s` to `max_backoff_s`, with jitter; a server's
    `grpc-retry-pushback-ms` takes its place. At most 5 attempts, gRPC's own limit.
    """

    max_attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    multiplier: float = 2.0
    codes: tuple[str, ...] = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


NO_RETRY = Retry(max_attempts=1)


@dataclass(frozen=True)
class Keepalive:
    """HTTP/2 pings on an idle connection, for proxies that drop silent ones.

    A gRPC server ends connections that ping more often than it permits, by default every 5 minutes.
    """

    time_s: float = 300.0
    timeout_s: float = 20.0
    without_calls: bool = False


@dataclass(frozen=True)
class Tls:
    """TLS, with the system's roots unless others are given; PEM bytes or paths of PEM files."""

    root_certificates: bytes | str | os.PathLike[str] | None = None
    private_key: bytes | str | os.PathLike[str] | None = None
    certificate_chain: bytes | str | os.PathLike[str] | None = None
    # Name that the server's certificate bears, where it differs from the address.
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's form of the same."""
        return grpc.ssl_channel_credentials(
            _pem(self.root_certificates), _pem(self.private_key), _pem(self.certificate_chain)
        )


@dataclass(frozen=True)
class Settings:
    """Everything that a client was configured with; both transports read it."""

    target: str
    timeout: float | None = DEFAULT_TIMEOUT_S
    api_key: str | None = None
    tls: Tls | None = None
    retry: Retry = Retry()
    keepalive: Keepalive | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    metadata: tuple[tuple[str, str], ...] = ()

    def channel_options(self) -> Options:
        """Arguments of the gRPC channel."""
        options: Options = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.enable_retries", int(self.retry.max_attempts > 1)),
            # A request that outgrows this buffer is never retried, and gRPC's 256 KiB is less than
            # most images.
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            ("grpc.service_config", service_config(self.retry)),
            # gRPC's own start at 1 s and grow to 2 minutes: too slow to notice a restarted server.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]
        if _is_loopback(self.target):
            options.append(("grpc.enable_http_proxy", 0))
        if self.keepalive is not None:
            options += [
                ("grpc.keepalive_time_ms", round(self.keepalive.time_s * 1000)),
                ("grpc.keepalive_timeout_ms", round(self.keepalive.timeout_s * 1000)),
                ("grpc.keepalive_permit_without_calls", int(self.keepalive.without_calls)),
            ]
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of one call: a request id of its own, so that server logs can be searched."""
        own: list[tuple[str, str]] = [("x-request-id", uuid.uuid4().hex)]
        if self.api_key:
            own.append(("authorization", f"Bearer {self.api_key}"))
        return (*own, *self.metadata)


def settings(
    *,
    target: str,
    timeout: float | None,
    api_key: str | None,
    tls: Tls | bool,
    retry: Retry,
    keepalive: Keepalive | None,
    max_message_bytes: int,
    metadata: Mapping[str, str] | Sequence[tuple[str, str]],
) -> Settings:
    """Settings from what a client's constructor takes."""
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
    return Settings(
        target=target,
        timeout=timeout,
        api_key=api_key,
        tls=(Tls() if tls is True else tls) or None,
        retry=retry,
        keepalive=keepalive,
        max_message_bytes=max_message_bytes,
        metadata=tuple((key.lower(), value) for key, value in pairs),
    )


def service_config(retry: Retry) -> str:
    """gRPC's service config (JSON) with the retry policy for every method."""
    method: dict[str, object] = {"name": [{}]}
    if retry.max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": retry.max_attempts,
            "initialBackoff": f"{retry.initial_backoff_s:.3f}s",
            "maxBackoff": f"{retry.max_backoff_s:.3f}s",
            "backoffMultiplier": retry.multiplier,
            "retryableStatusCodes": list(retry.codes),
        }
    # Each failure costs a token and each success earns half of one; below half of the tokens
    # retries stop, so that a server in trouble is not asked four times as much by every caller at
    # once.
    throttling = {"maxTokens": 100, "tokenRatio": 0.5}
    return json.dumps({"methodConfig": [method], "retryThrottling": throttling})


def _is_loopback(target: str) -> bool:
    host = target.rpartition("///")[2]
    return host.startswith(("localhost", "127.", "[::1]", "unix:")) or target.startswith("unix:")


def _pem(value: bytes | str | os.PathLike[str] | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return Path(value).read_bytes()
