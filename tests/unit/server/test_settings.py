"""Settings: three ways to say each, and messages that name the field."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from velatura.server.engine.providers import Provider
from velatura.server.engine_settings import engine_options
from velatura.server.settings import BadSettings, Settings, load, split_address

SAMPLES = {
    "listen": "0.0.0.0:1", "metrics_listen": "[::1]:2", "bundle": "b", "provider": "cpu",
    "strict_provider": True, "gpu_memory_mib": 5, "intra_threads": 3, "instances": 2,
    "pixel_threads": 7, "max_batch_size": 4, "max_queue_items": 9, "max_queue_mib": 11,
    "cuda_graphs": True, "tensorrt_cache": "engines", "tensorrt_fp16": True,
    "openvino_precision": "bf16",
    "pad_batches": "1,4", "warm_sides": "64,96", "max_backlog_mib": 12,
    "max_backlog_megapixels": 13, "admission": False,
    "max_queue_delay_ms": 1.5, "cache_mib": 13, "max_requests": 6, "max_image_mib": 8,
    "max_message_mib": 10,
    "max_pixels": 1234, "max_side": 99, "default_deadline_s": 2.5, "drain_s": 4.0,
    "tls_cert": __file__, "tls_key": __file__, "api_keys": __file__,
    "metrics": False, "otlp_endpoint": "https://[::1]:4317", "trace_sampling": 0.25,
    "service_name": "house",
    "log_level": "error", "log_format": "json",
}  # fmt: skip
TOGETHER = {"tls_cert": ["tls_cert", "tls_key"], "tls_key": ["tls_cert", "tls_key"]}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VELATURA_"):
            monkeypatch.delenv(name)


def said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_samples_are_all_the_settings() -> None:
    assert set(SAMPLES) | {"config"} == set(Settings.model_fields)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_can_be_said_in_three_ways(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = TOGETHER.get(name, [name])
    flags = []
    for each in names:
        flag = f"--{each.replace('_', '-')}"
        if SAMPLES[each] is False:
            flags.append(f"--no-{flag[2:]}")
        else:
            flags += [flag] if SAMPLES[each] is True else [flag, said(SAMPLES[each])]
    file = tmp_path / "s.toml"
    quoted = {
        each: said(SAMPLES[each]) if isinstance(SAMPLES[each], bool) else repr(SAMPLES[each])
        for each in names
    }
    file.write_text("".join(f"{each} = {quoted[each]}\n" for each in names))

    by_flag = getattr(load(flags), name)
    by_file = getattr(load(["--config", str(file)]), name)
    for each in names:
        monkeypatch.setenv(f"VELATURA_{each.upper()}", said(SAMPLES[each]))
    by_environment = getattr(load([]), name)
    assert by_flag == by_file == by_environment
    assert str(by_flag) == str(SAMPLES[name])
    assert Settings.model_fields[name].default != by_flag


def test_flags_beat_the_environment_and_the_environment_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.toml"
    file.write_text("max_side = 1\nmax_pixels = 1\ninstances = 1\n")
    monkeypatch.setenv("VELATURA_CONFIG", str(file))
    monkeypatch.setenv("VELATURA_MAX_SIDE", "2")
    monkeypatch.setenv("VELATURA_MAX_PIXELS", "2")
    settings = load(["--max-side", "3"])
    assert (settings.max_side, settings.max_pixels, settings.instances) == (3, 2, 1)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--instances", "-1"], "instances (--instances, VELATURA_INSTANCES)"),
        (["--pad-batches", "1,x"], "pad_batches (--pad-batches, VELATURA_PAD_BATCHES)"),
        (["--warm-sides", ""], "warm_sides"),
        (["--drain-s", "nan"], "drain_s"),
        (["--listen", "localhost"], "localhost"),
        (["--listen", "localhost:99999"], "99999"),
        (["--listen", "::1:8500"], "[::1]:8500"),
        (["--tls-cert", __file__], "tls_key"),
        (["--api-keys", "/nowhere"], "api_keys"),
        (["--config", "/nowhere"], "/nowhere"),
    ],
)
def test_a_bad_setting_is_named(flags: list[str], named: str) -> None:
    with pytest.raises(BadSettings) as raised:
        load(flags)
    assert named in str(raised.value)


def test_a_typo_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("max_pixel = 5\n")
    with pytest.raises(BadSettings, match="max_pixel: there is no such setting"):
        load(["--config", str(file)])
    file.write_text("max_pixels 5\n")
    with pytest.raises(BadSettings, match="not TOML"):
        load(["--config", str(file)])


def test_every_bad_setting_has_a_line() -> None:
    with pytest.raises(BadSettings) as raised:
        load(["--instances", "-1", "--max-side", "x"])
    assert len(str(raised.value).splitlines()) == 2


def test_defaults_that_operators_rely_on() -> None:
    settings = load([])
    assert settings.listen == "127.0.0.1:8500"
    assert settings.metrics_listen == "127.0.0.1:9090"
    assert settings.provider is Provider.AUTO
    assert settings.message_bytes == 33 * 1024 * 1024
    assert settings.max_pixels == 16 * 1024 * 1024
    assert load(["--max-image-mib", "2"]).message_bytes == 3 * 1024 * 1024
    assert load(["--max-message-mib", "5"]).message_bytes == 5 * 1024 * 1024


def test_the_engine_gets_its_part() -> None:
    flags = [
        "--max-queue-mib",
        "3",
        "--max-queue-delay-ms",
        "5",
        "--strict-provider",
        "--intra-threads",
        "2",
        "--pad-batches",
        "4, 1,2",
        "--max-backlog-megapixels",
        "2",
        "--no-admission",
    ]
    options = engine_options(load(flags))
    assert options.max_queue_bytes == 3 * 1024 * 1024
    assert options.max_queue_delay_s == 0.005
    assert options.strict
    assert options.intra_threads == 2
    assert options.pad_sizes == (1, 2, 4)
    assert options.warm_sides == (128,)
    assert options.max_backlog_pixels == 2_000_000
    assert not options.refuse_late


def test_addresses_are_split() -> None:
    assert split_address("[::1]:80") == ("[::1]", 80)
    assert split_address("a.b:0") == ("a.b", 0)
