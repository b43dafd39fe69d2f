"""The ``asgiri`` command: what is typed, whether that can be served, and serving it (the composition root)."""
