"""Bytes to events and back, sans-I/O: no asyncio, socket, time or logging in this room."""
