"""Writes docs/api.md from the .proto files: their services, messages, limits and comments.

No generator was found that knows this project's constraint options and needs neither Go nor a
network; protoc itself parses the files, so that what is left is reading its answer and writing
Markdown. Not part of the wheel.
"""
