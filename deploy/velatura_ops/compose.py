"""What docker-compose.yml and the Dockerfiles say about a container: its command line, its
environment, its probe. The stack without containers and the tests run exactly these.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@cache
def services() -> dict[str, dict[str, Any]]:
    """The services by name, with YAML's anchors resolved."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return loaded


def instruction(dockerfile: Path, name: str) -> list[str]:
    """The last ENTRYPOINT or CMD of a Dockerfile, which is JSON. Raises ValueError without one."""
    text = _joined(dockerfile)
    found = re.findall(rf"^{name} (\[.*\])$", text, flags=re.MULTILINE)
    if not found:
        raise ValueError(f"{dockerfile} has no {name} in JSON form")
    return [str(part) for part in json.loads(found[-1])]


def healthcheck(dockerfile: Path) -> list[str]:
    """The command of HEALTHCHECK."""
    (found,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", _joined(dockerfile), flags=re.MULTILINE)
    return [str(part) for part in json.loads(found)]


def environment(dockerfile: Path) -> dict[str, str]:
    """The variables that the final stage sets."""
    final = re.split(r"^FROM ", _joined(dockerfile), flags=re.MULTILINE)[-1]
    pairs: dict[str, str] = {}
    for line in re.findall(r"^ENV (.*)$", final, flags=re.MULTILINE):
        pairs |= dict(re.findall(r"(\w+)=(\S+)", line))
    return pairs


def command_of(service: str) -> list[str]:
    """What a container of ours runs: ENTRYPOINT and CMD of its Dockerfile, unless the compose file
    says otherwise."""
    declared = services()[service]
    dockerfile = ROOT / declared["build"]["dockerfile"]
    entry = declared.get("entrypoint") or instruction(dockerfile, "ENTRYPOINT")
    return [*entry, *(declared.get("command") or instruction(dockerfile, "CMD"))]


def environment_of(service: str) -> dict[str, str]:
    """The variables of a container of ours: the Dockerfile's, then the compose file's, with its
    defaults filled in; those that it only hands on are left out."""
    declared = services()[service]
    own = environment(ROOT / declared["build"]["dockerfile"])
    given = {key: str(value) for key, value in declared.get("environment", {}).items() if value}
    return own | {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for key, value in given.items()}


def _joined(dockerfile: Path) -> str:
    """A Dockerfile without comments, with its continued lines on one line."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", " ", text)
