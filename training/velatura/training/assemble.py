"""Collects trained runs into the weights that the export reads."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file

from velatura.export.checkpoints.native import save_weights
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.stylegan2 import Generator
from velatura.training.generator.mapping import MAPPING_FILE, mapping_config
from velatura.training.generator.pretrain import LabelledGenerator
from velatura.training.runs.checkpoint import load_checkpoint, restore_module


def assemble_weights(joint: Path, segmenter_run: Path, mapping_run: Path, weights: Path) -> None:
    """Write the generator, encoder and segmenter, each safetensors and JSON, to `weights`."""
    tensors, _ = load_checkpoint(joint)
    config = mapping_config()
    labelled = LabelledGenerator(config)
    encoder = Encoder(EncoderConfig())
    restore_module("ema.generator", labelled, tensors)
    restore_module("ema.encoder", encoder, tensors)
    generator = Generator(config)
    generator.synthesis.load_state_dict(labelled.synthesis.state_dict())
    generator.mapping.load_state_dict(load_file(mapping_run / MAPPING_FILE))
    save_weights(weights / "avatar-generator.safetensors", generator, config)
    save_weights(weights / "avatar-encoder.safetensors", encoder, encoder.config)
    for suffix in (".safetensors", ".json"):
        source = (segmenter_run / "segmenter").with_suffix(suffix)
        shutil.copyfile(source, (weights / "avatar-segmenter").with_suffix(suffix))
