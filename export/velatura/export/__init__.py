"""Torch networks and foreign checkpoints to checked ONNX bundles."""
