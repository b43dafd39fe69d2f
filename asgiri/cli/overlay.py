"""What some flags lay over every listener, whatever file and environment say of it: ``--http``, ``--certfile``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from msgspec.structs import replace

from asgiri.config.decode import expected
from asgiri.config.keys import Key
from asgiri.config.schema import HttpVersion, Tls
from asgiri.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgiri.config.load import Loaded

# What --http can say; "auto" says nothing.
SPOKEN: Final[dict[str, HttpVersion]] = {version: version for version in get_args(HttpVersion)}
_HTTP: Final = Key("http", (Literal["auto", HttpVersion],), optional=False)


def overlaid(read: Callable[[], Loaded], http: str | None, certfile: str | None, keyfile: str | None) -> Loaded:
    """What ``read`` loads, with the flags over it. ConfigError with what is wrong with either."""
    problems = []
    if http not in (None, "auto", *SPOKEN):
        problems.append(Problem("--http", "", f'expected {expected(_HTTP)}, got "{http}"'))
    try:
        loaded = read()
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    if http in SPOKEN:
        loaded = speaking(loaded, SPOKEN[http])
    return loaded if certfile is None else secure(loaded, certfile, keyfile)


def speaking(loaded: Loaded, http: HttpVersion) -> Loaded:
    """``--http``: what every listener speaks, whatever was said of it."""
    spoken = tuple(f"listen[{index}].http" for index in range(len(loaded.config.listen)))

    def others(texts: dict[str, str]) -> dict[str, str]:
        return {path: text for path, text in texts.items() if not path.startswith(spoken)}

    origins = others(loaded.origins) | dict.fromkeys(spoken, "--http")
    return replace(loaded, config=loaded.config.speaking(http), origins=origins, written=others(loaded.written))


def secure(loaded: Loaded, certfile: str, keyfile: str | None) -> Loaded:
    """``--certfile`` and ``--keyfile``: TLS on every listener that has none."""
    given = {"certfile": certfile} if keyfile is None else {"certfile": certfile, "keyfile": keyfile}
    origins = dict(loaded.origins)
    for index, listen in enumerate(loaded.config.listen):
        if listen.tls is None:
            origins |= {f"listen[{index}].tls.{name}": f"--{name}" for name in given}
    config = loaded.config.secured(Tls(certfile=certfile, keyfile=keyfile))
    return replace(loaded, config=config, origins=origins)
