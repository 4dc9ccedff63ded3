"""Debian's Prometheus with the compose file's own arguments and configuration, on this host: only
targets, paths and the port are other ones. And questions to it.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from velatura_ops.compose import ROOT, services
from velatura_ops.processes import answers, running

CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/prometheus/rules"
ADVICE = "install Debian's package `prometheus`, which also brings promtool"


def program() -> str | None:
    """Path of the program; None where it is not installed."""
    return shutil.which("prometheus")


def adapted_config(target: str, own: str, scrape_interval: str | None = None) -> dict[str, Any]:
    """The repository's configuration for a server whose metrics are at `target` and a Prometheus at
    `own` (host:port each)."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    for job in config["scrape_configs"]:
        if job["job_name"] == "velatura":
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": [target]}]
        elif job["job_name"] == "prometheus":
            job["static_configs"] = [{"targets": [own]}]
    config["rule_files"] = [str(RULES / Path(each).name) for each in config["rule_files"]]
    if scrape_interval:
        config["global"] |= {
            "scrape_interval": scrape_interval,
            "scrape_timeout": scrape_interval,
            "evaluation_interval": scrape_interval,
        }
    return config


def adapted_command(executable: str, config: Path, storage: Path, own: str) -> list[str]:
    """The container's arguments with other paths, and the address to listen on."""
    replaced = {"--config.file": str(config), "--storage.tsdb.path": str(storage)}
    arguments = []
    for argument in services()["prometheus"]["command"]:
        flag, _, _ = argument.partition("=")
        arguments.append(f"{flag}={replaced.pop(flag)}" if flag in replaced else argument)
    if replaced:
        raise ValueError(f"the compose file's prometheus lacks {', '.join(replaced)}")
    return [executable, *arguments, f"--web.listen-address={own}"]


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def query(self, expr: str, time: float | None = None) -> list[dict[str, Any]]:
        """The samples of an expression, now or at a time (Unix seconds). Raises ValueError for
        PromQL that is refused."""
        more = {} if time is None else {"time": f"{time:.3f}"}
        return self._series("query", {"query": expr, **more})

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression between two times (Unix seconds)."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return self._series("query_range", {"query": expr, **times})

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of the answer of /api/v1/`path`. Raises ValueError with Prometheus' own words."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise ValueError(f"{path} {parameters}: {text}") from None

    def _series(self, path: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.get(path, **parameters)["result"]
        return result


@contextmanager
def prometheus(
    folder: Path, target: str, own: str, scrape_interval: str | None = None
) -> Iterator[Prometheus]:
    """Run it for the block, with its data in `folder`. Raises `DidNotStart`, and FileNotFoundError
    where it is not installed."""
    executable = program()
    if executable is None:
        raise FileNotFoundError(f"prometheus is not installed: {ADVICE}")
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(adapted_config(target, own, scrape_interval)))
    command = adapted_command(executable, config, folder / "data", own)
    url = f"http://{own}"
    with running("Prometheus", command, folder / "prometheus.log", answers(f"{url}/-/ready")):
        yield Prometheus(url)
