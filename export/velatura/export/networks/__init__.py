"""One file per architecture: torch modules written so that one ONNX graph serves every batch size."""
