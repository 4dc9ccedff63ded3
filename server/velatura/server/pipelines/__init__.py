"""What each RPC does, told from top to bottom in terms of the engine and of images.

Nothing here knows gRPC or the messages of the wire; of protobuf only the bundle's own entries.
"""
