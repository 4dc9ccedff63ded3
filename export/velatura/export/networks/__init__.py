"""One file per architecture: torch modules whose one ONNX graph serves every batch size."""
