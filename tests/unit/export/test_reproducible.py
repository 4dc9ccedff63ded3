"""The same network gives the same bytes, whatever the process that exports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from velatura.export.verify import one_thread

# A script, for names that come from ids, hashes and threads differ between processes only.
_SCRIPT = """
import sys
from pathlib import Path
import torch
from velatura.export.bundle import write_bundle
from velatura.export.generator_networks import Origin, synthesis_spec
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig

torch.manual_seed(0)
config = GeneratorConfig(8, 8, 8, 2, channels={4: 8, 8: 8}, resample_filter=(1, 3, 3, 1))
spec = synthesis_spec("tiny", Generator(config).eval(), Origin("MIT", "random", "none", ""))
write_bundle(Path(sys.argv[1]), name="tiny", specs=[spec])
"""


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_processes_write_the_same_bundle(tmp_path: Path) -> None:
    runs = []
    for number in ("1", "2"):  # of the hash seed and of the threads
        environment = os.environ | {"PYTHONHASHSEED": number, "OMP_NUM_THREADS": number}
        command = [sys.executable, "-c", _SCRIPT, str(tmp_path / number)]
        runs.append(subprocess.Popen(command, env=environment))
    assert [run.wait(timeout=240) for run in runs] == [0, 0]
    first, second = _files(tmp_path / "1"), _files(tmp_path / "2")
    assert {"tiny.onnx", "manifest.json", "cards/tiny.md", "README.md"} <= first.keys()
    assert first == second


def test_one_thread_ends_with_the_block() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
