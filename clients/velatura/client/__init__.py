"""Sync and asyncio clients of a Velatura server."""
