"""Our own class-conditional generators: `NAME.safetensors` with its configuration beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from velatura.export.checkpoints.native import load_state, read_config
from velatura.export.networks.biggan import ClassGenerator, ClassGeneratorConfig, baked


def load_class_generator(weights: Path) -> ClassGenerator:
    """In eval mode, spectral normalisation baked in. Raises CheckpointError where the files do not
    fit."""
    config = read_config(weights, ClassGeneratorConfig, _fields)
    network = load_state(ClassGenerator(config), weights)
    return baked(network) if config.spectral_norm else network


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither tuples nor numbers as keys."""
    adapted = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    if "channels" in adapted:
        widths: dict[str, int] = values["channels"]
        adapted["channels"] = {int(size): width for size, width in widths.items()}
    return adapted
