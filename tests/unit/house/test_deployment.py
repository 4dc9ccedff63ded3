"""The compose file and the images are valid, contained and pinned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from velatura_ops.compose import COMPOSE, command_of, environment_of, healthcheck, services

from .repository import ROOT, run

DOCKERFILES = ["deploy/Dockerfile", "deploy/gpu.Dockerfile", "deploy/loadtest.Dockerfile"]
SERVICES: dict[str, dict[str, Any]] = services()
OURS = {name: each["build"]["dockerfile"] for name, each in SERVICES.items() if "build" in each}


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


def test_the_gpu_server_and_the_load_test_start_only_on_request() -> None:
    by_default = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert by_default == {"server", "prometheus", "grafana"}
    assert SERVICES["server-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["loadtest"]["profiles"] == ["load"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_is_contained(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), "pin the image's version"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"loadtest"}))
def test_service_that_stays_is_probed_and_restarted(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["server", "server-gpu"])
def test_server_publishes_its_ports_to_this_host_alone(name: str) -> None:
    ports = [re.sub(r"^\$\{\w+:-([\d.]+)\}", r"\1", port) for port in SERVICES[name]["ports"]]
    assert ports == ["127.0.0.1:8500:8500", "127.0.0.1:9090:9090"]


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_pages_are_for_this_host_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_no_two_services_that_run_together_publish_the_same_port() -> None:
    together = [name for name in SERVICES if name != "server-gpu"]
    ports = [
        port.rsplit(":", 2)[-2] for name in together for port in SERVICES[name].get("ports", ())
    ]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_is_mounted_is_there(name: str) -> None:
    volumes = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    for mount in SERVICES[name].get("volumes", ()):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mount.endswith(":ro")
        else:
            assert source in volumes


def test_prometheus_scrapes_the_alias_of_both_servers() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "velatura")
    (discovery,) = job["dns_sd_configs"]
    assert discovery["port"] == 9090
    for name in ("server", "server-gpu"):
        assert discovery["names"] == SERVICES[name]["networks"]["default"]["aliases"]
    target = SERVICES["loadtest"]["environment"]["VELATURA_TARGET"]
    assert target == f"{discovery['names'][0]}:8500"


def test_prometheus_finds_the_rules_where_they_are_mounted() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    mounts = dict(each.split(":")[:2] for each in SERVICES["prometheus"]["volumes"])
    assert mounts["./deploy/prometheus/rules"] == "/etc/prometheus/rules"
    files = sorted(path.name for path in (ROOT / "deploy/prometheus/rules").iterdir())
    assert sorted(config["rule_files"]) == [f"rules/{name}" for name in files]


@pytest.mark.parametrize("name", ["server", "server-gpu"])
def test_probe_of_the_image_and_of_the_compose_file_are_one(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][1:] == healthcheck(ROOT / OURS[name])


@pytest.mark.parametrize("name", sorted(OURS))
def test_container_runs_a_program_of_the_package_it_installs(name: str) -> None:
    package, program = {
        "server": ("server", "velatura-server"),
        "server-gpu": ("server", "velatura-server"),
        "loadtest": ("clients", "velatura-loadtest"),
    }[name]
    assert command_of(name)[0] == program
    assert f"\n{program} = " in (ROOT / package / "pyproject.toml").read_text()
    assert environment_of(name)["PYTHONUNBUFFERED"] == "1"


@pytest.mark.parametrize("file", DOCKERFILES)
def test_dockerfile_passes_the_linter(file: str) -> None:
    outcome = run("hadolint", file)
    assert outcome.returncode == 0, outcome.stdout


def test_every_dockerfile_is_checked() -> None:
    assert {f"deploy/{path.name}" for path in (ROOT / "deploy").glob("*Dockerfile")} == set(
        DOCKERFILES
    )
    assert set(OURS.values()) == set(DOCKERFILES)
    assert "deploy/*Dockerfile" in (ROOT / "scripts/lint").read_text()


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


@pytest.mark.parametrize("file", DOCKERFILES)
def test_images_carry_nothing_of_training(file: str) -> None:
    text = (ROOT / file).read_text()
    pins = re.findall(r"^COPY (constraints\S*) ", text, re.MULTILINE)
    assert len(pins) == 1
    assert re.findall(r"pip install -[rc] (\S+)", text) == pins * 2, "nothing is installed unpinned"
    installed = set(re.findall(r"^([a-z0-9-]+)", (ROOT / pins[0]).read_text(), re.MULTILINE))
    assert {"grpcio", "protobuf"} <= installed
    unwanted = {"torch", "torchvision", "timm", "segmentation-models-pytorch", "onnxscript"}
    if file == "deploy/loadtest.Dockerfile":
        unwanted |= {"numpy", "onnxruntime", "opencv-python-headless"}
    assert not installed & unwanted
    assert not re.search(r"^COPY (?:export|training)\b", text, re.MULTILINE)
