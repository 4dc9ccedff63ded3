"""What each RPC does, told from top to bottom in terms of the engine and of images; no protobuf, no gRPC."""
