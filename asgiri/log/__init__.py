"""Logging: one line an event, as text or JSON."""
