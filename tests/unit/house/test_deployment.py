"""The compose file and the images are valid, contained and pinned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .repository import ROOT, run

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = ["deploy/Dockerfile", "deploy/gpu.Dockerfile"]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


def check_schema(file: Path) -> tuple[int, str]:
    outcome = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    return outcome.returncode, outcome.stdout + outcome.stderr


def test_compose_file_meets_the_schema() -> None:
    code, output = check_schema(COMPOSE)
    assert code == 0, output


def test_the_schema_finds_a_misspelt_key(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("read_only:", "readonly:"))
    assert check_schema(broken)[0] != 0


def test_the_gpu_server_starts_only_on_request() -> None:
    by_default = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert by_default == {"server", "prometheus"}
    assert SERVICES["server-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_is_contained(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), "pin the image's version"


@pytest.mark.parametrize("name", ["server", "server-gpu"])
def test_server_publishes_its_ports_to_this_host_alone(name: str) -> None:
    ports = [re.sub(r"^\$\{\w+:-([\d.]+)\}", r"\1", port) for port in SERVICES[name]["ports"]]
    assert ports == ["127.0.0.1:8500:8500", "127.0.0.1:9090:9090"]


def test_prometheus_scrapes_the_alias_of_both_servers() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "velatura")
    (discovery,) = job["dns_sd_configs"]
    assert discovery["port"] == 9090
    for name in ("server", "server-gpu"):
        assert discovery["names"] == SERVICES[name]["networks"]["default"]["aliases"]


@pytest.mark.parametrize("file", DOCKERFILES)
def test_dockerfile_passes_the_linter(file: str) -> None:
    outcome = run("hadolint", file)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("file", DOCKERFILES)
def test_final_image_has_no_build_tools_and_no_root(file: str) -> None:
    stages = re.split(r"^FROM ", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    for stage in stages:
        assert re.match(r"python:\d+\.\d+\.\d+-slim-", stage), "pin the base image's version"
    final = stages[-1]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert not re.search(r"\bpip\b|apt-get|\bgcc\b", re.sub(r"^#.*", "", final, flags=re.MULTILINE))


@pytest.mark.parametrize("file", DOCKERFILES)
def test_everything_that_is_copied_reaches_the_builder(file: str) -> None:
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(\S+) \S+$", (ROOT / file).read_text(), re.MULTILINE)
    assert copied
    assert set(copied) <= set(allowed)
