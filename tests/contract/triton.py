"""tritonclient, unmodified, in a process of its own."""

# ruff: noqa: S301 - only the process that is started here writes there

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("triton_driver.py")
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Answer:
    """What tritonclient read from a ModelInferResponse."""

    id: str
    model: str
    version: str
    outputs: dict[str, np.ndarray[Any, Any]]


class Refused(Exception):  # noqa: N818 - what happened, as gRPC names it
    """tritonclient's InferenceServerException: `status` such as "StatusCode.NOT_FOUND"."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class TritonClient:
    """Calls of tritonclient against the server at `address`; one at a time."""

    def __init__(self, address: str) -> None:
        self.address = address
        python = os.environ.get("VELATURA_TEST_TRITON_PYTHON", ROOT / ".venv-triton/bin/python")
        if not Path(python).exists():
            raise RuntimeError(f"tritonclient's environment {python} is missing: `make setup-dev`")
        self._process = subprocess.Popen(
            [python, DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, method: str, **arguments: Any) -> Any:
        """A method of InferenceServerClient that gives plain data."""
        return self._call("ask", self.address, method, arguments)

    def ask_aio(self, method: str, **arguments: Any) -> Any:
        """The same of the asyncio client."""
        return self._call("ask_aio", self.address, method, arguments)

    def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str] = (), **options: Any
    ) -> Answer:
        """InferenceServerClient.infer with its own options; `outputs` () for all."""
        arguments = (self.address, model, dict(inputs), list(outputs), options)
        return Answer(**self._call("infer", *arguments))

    def infer_together(self, model: str, many: Sequence[Arrays]) -> list[Answer]:
        """Concurrent calls of the asyncio client, answers in order."""
        found = self._call("infer_together", self.address, model, list(many))
        return [Answer(**each) for each in found]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)

    def _call(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()
        kind, answer = pickle.load(self._process.stdout)
        if kind == "refused":
            raise Refused(*answer)
        assert kind == "ok", answer
        return answer
