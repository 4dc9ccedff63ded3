"""Every setting of the server, once: as a flag, as an environment variable and as a key of a TOML
file.

`max_queue_items` is `--max-queue-items`, `VELATURA_MAX_QUEUE_ITEMS` and `max_queue_items = …`.
Flags beat the environment, the environment beats the file, the file beats the defaults.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, FilePath, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.openvino import Precision
from velatura.server.engine.providers import Provider
from velatura.server.observability.logging import LogFormat, LogLevel

ENV_PREFIX = "VELATURA_"
MIB = 1024 * 1024
# What a request may carry besides its one image at the limit.
MESSAGE_SLACK = MIB


class BadSettings(Exception):  # noqa: N818 - says what is wrong
    """Settings that cannot be used; the message has one line for each, naming flag and variable."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port"; an IPv6 host stands in brackets. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not host:port, such as 127.0.0.1:8500")
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{port!r} is not a port 0..65535")
    if host.startswith("["):
        ipaddress.IPv6Address(host.strip("[]"))
    elif ":" in host:
        raise ValueError(f"an IPv6 host needs brackets, as in [{host}]:{port}")
    return host, int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


def _endpoint(value: str) -> str:
    scheme, colons, address = value.partition("://")
    if not value:
        return value
    if not colons or scheme not in ("http", "https"):
        raise ValueError(f"{value!r} is not http://host:port or https://host:port")
    split_address(address.rstrip("/"))
    return value


def _sizes(value: str) -> str:
    if value:
        sizes_of(value)
    return value


def sizes_of(value: str) -> tuple[int, ...]:
    """Numbers of "1,2,4", ascending; raises ValueError."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{value!r} is not a list of whole numbers above 0, such as 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))


Address = Annotated[str, AfterValidator(_address)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Sizes = Annotated[str, AfterValidator(_sizes)]


def default_bundle() -> Path:
    """The embedded bundle of a source checkout, found from this file; else `models` in the working
    directory."""
    for parent in Path(__file__).resolve().parents:
        candidate = parent / "models"
        if (candidate / "manifest.json").is_file():
            return candidate
    return Path("models")


class Settings(BaseSettings):
    """Settings of the server. Each is also an environment variable (--max-pixels is
    VELATURA_MAX_PIXELS) and a key of the TOML file named by --config (max_pixels); flags beat
    variables, variables beat the file."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_prog_name="velatura-server serve",
        validate_default=True,
    )

    config: Path | None = Field(None, description="TOML file with settings")
    listen: Address = Field(
        "127.0.0.1:8500", description="gRPC address, host:port; port 0 takes a free one"
    )
    metrics_listen: Address = Field(
        "127.0.0.1:9090", description="address of GET /metrics, host:port; port 0 takes a free one"
    )
    bundle: Path = Field(default_factory=default_bundle, description="directory with manifest.json")

    provider: Provider = Field(
        Provider.AUTO, description="execution provider: auto, cpu, cuda, tensorrt or openvino"
    )
    strict_provider: bool = Field(
        False, description="refuse to start when the wanted provider is not really used"
    )
    gpu_memory_mib: int = Field(
        0, ge=0, description="most device memory for each network, MiB; 0 for no limit"
    )
    cuda_graphs: bool = Field(
        False, description="on GPUs, capture one CUDA graph for each size of batch and picture"
    )
    tensorrt_cache: Path | None = Field(
        None, description="directory for TensorRT's engines, which take minutes to build"
    )
    tensorrt_fp16: bool = Field(False, description="let TensorRT compute in float16")
    openvino_precision: Precision = Field(
        Precision.F32,
        description="what OpenVINO computes in: f32, or bf16, which rounds and is faster on CPUs "
        "that have instructions for it",
    )
    instances: int = Field(
        0,
        ge=0,
        le=64,
        description="batches of one network that run at a time; 0 by load: one on all threads for "
        "a caller alone, one a CPU for many",
    )
    intra_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads a network's run uses; 0 by load, or all where instances is set",
    )
    pixel_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="threads for decoding, compositing and encoding; 0 for one a CPU, at least 2",
    )

    max_batch_size: int = Field(8, ge=1, le=1024, description="most items in a batch")
    pad_batches: Sizes = Field(
        "",
        description="sizes that batches are filled up to, such as 1,2,4,8, for providers that want "
        "fixed shapes; empty for any size",
    )
    warm_sides: Sizes = Field(
        "128",
        min_length=1,
        description="sides of pictures to warm networks of any size up for, such as 128,256,512",
    )
    max_queue_items: int = Field(256, ge=1, description="most items that wait for one network")
    max_queue_mib: int = Field(512, ge=1, description="most bytes that wait for one network, MiB")
    max_backlog_mib: int = Field(
        1024, ge=1, description="most bytes that wait for all networks together, MiB"
    )
    max_backlog_megapixels: int = Field(
        64, ge=1, description="most pixels that wait for all networks together, millions"
    )
    max_queue_delay_ms: float = Field(
        0,
        ge=0,
        le=1000,
        description="longest wait for a batch to fill while the device is free, ms",
    )
    cache_mib: int = Field(
        64,
        ge=0,
        le=1_048_576,
        description="most bytes of decoded pictures, latents, label maps and reconstructions kept "
        "for requests that repeat, MiB; 0 keeps none",
    )
    max_requests: int = Field(256, ge=1, description="most requests in work at once")
    max_image_mib: int = Field(
        32, ge=1, le=1024, description="most bytes of one image as sent, MiB"
    )
    max_message_mib: int = Field(
        0,
        ge=0,
        le=2047,
        description="most bytes of a request, MiB; 0 for the image limit and 1 MiB more",
    )
    max_pixels: int = Field(
        16_777_216, ge=1, le=268_435_456, description="most pixels of one image"
    )
    max_side: int = Field(16_384, ge=1, le=65_500, description="longest side of one image, pixels")

    admission: bool = Field(
        True, description="refuse at arrival what by the estimate cannot meet its deadline"
    )
    default_deadline_s: float = Field(
        60, gt=0, le=86_400, description="time for a request whose caller sets no deadline, s"
    )
    drain_s: float = Field(
        30, ge=0, le=3600, description="time for requests in work to finish after SIGTERM, s"
    )

    tls_cert: FilePath | None = Field(
        None, description="PEM certificate chain; with tls-key, serves TLS"
    )
    tls_key: FilePath | None = Field(None, description="PEM private key")
    api_keys: FilePath | None = Field(
        None, description="file with one API key a line; callers send 'authorization: Bearer KEY'"
    )

    metrics: bool = Field(True, description="count and time what happens, and serve GET /metrics")
    otlp_endpoint: Endpoint = Field(
        "",
        description="OTLP collector for traces over gRPC, such as http://127.0.0.1:4317; "
        "none is sent where this is empty",
    )
    trace_sampling: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of calls that are traced, 0 to 1, where the caller has not decided it",
    )
    service_name: str = Field(
        "velatura", min_length=1, max_length=128, description="the service's name in traces"
    )
    log_level: LogLevel = Field(
        LogLevel.INFO, description="least level that is logged: debug, info, warning or error"
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO,
        description="console (for people), json, or auto: console on a terminal, json elsewhere",
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together: give both or none")
        return self

    @property
    def message_bytes(self) -> int:
        """Most bytes of a request."""
        return self.max_message_mib * MIB or self.max_image_mib * MIB + MESSAGE_SLACK

    @property
    def pixel_worker_count(self) -> int:
        """Threads of the pool for pixels."""
        return self.pixel_threads or max(2, cpu_budget())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come in front of these (see `load`)."""
        return (env_settings, init_settings)


def load(arguments: Sequence[str]) -> Settings:
    """The settings from flags, environment and file. Raises `BadSettings`; `--help` prints and
    exits."""
    try:
        file = _read_file(_config_path(arguments))
        flags: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
            Settings, cli_parse_args=list(arguments)
        )
        # The file's values stand in for arguments of the constructor, the weakest source.
        return Settings(_cli_settings_source=flags, **file)
    except ValidationError as error:
        raise BadSettings("\n".join(_line(each) for each in error.errors())) from None
    except SettingsError as error:
        raise BadSettings(f"bad settings: {error}") from None


def _config_path(arguments: Sequence[str]) -> Path | None:
    """The file has to be known before the other settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    known, _ = parser.parse_known_args(list(arguments))
    given = known.config or os.environ.get(f"{ENV_PREFIX}CONFIG")
    return Path(given) if given else None


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(
            f"config (--config, {ENV_PREFIX}CONFIG): {path}: {error.strerror}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"config (--config, {ENV_PREFIX}CONFIG): {path} is not TOML: {error}."
        ) from None


def _line(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - what pydantic hands out
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return f"bad settings: {message}."
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting. `velatura-server serve --help` lists them."
    flag, variable = f"--{name.replace('_', '-')}", f"{ENV_PREFIX}{name.upper()}"
    return f"{name} ({flag}, {variable}): {message}; got {error['input']!r}."
