"""``python -m asgiri``: the same as the ``asgiri`` command."""

from asgiri.cli import main

if __name__ == "__main__":
    main()
