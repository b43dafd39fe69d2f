"""asgiri: a process-manager style ASGI server daemon.

The names meant for embedders live in :mod:`asgiri.server`; importing the package alone loads nothing else.
"""

__version__ = "0.1.0"
