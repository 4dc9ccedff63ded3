"""Collects trained runs into the weights that the export reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from velatura.export.checkpoints.native import save_weights
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.training.generator.mapping import MappingSettings, train_mapping
from velatura.training.generator.pretrain import LabelledGenerator
from velatura.training.runs.checkpoint import load_checkpoint, restore_module


def assemble_weights(joint: Path, segmenter_run: Path, weights: Path, mapping_steps: int) -> None:
    """Write the generator, encoder and segmenter, each safetensors and JSON, to `weights`."""
    torch.manual_seed(0)
    tensors, _ = load_checkpoint(joint)
    labelled = LabelledGenerator(GeneratorConfig())
    encoder = Encoder(EncoderConfig())
    restore_module("ema.generator", labelled, tensors)
    restore_module("ema.encoder", encoder, tensors)
    generator = Generator(labelled.config)
    generator.synthesis.load_state_dict(labelled.synthesis.state_dict())
    train_mapping(generator.mapping, labelled.labels, MappingSettings(steps=mapping_steps))
    save_weights(weights / "avatar-generator.safetensors", generator, generator.config)
    save_weights(weights / "avatar-encoder.safetensors", encoder, encoder.config)
    for suffix in (".safetensors", ".json"):
        source = (segmenter_run / "segmenter").with_suffix(suffix)
        shutil.copyfile(source, (weights / "avatar-segmenter").with_suffix(suffix))
