"""The Velatura service: gRPC in, onnxruntime underneath."""
