"""The reference page, docs/reference/configuration.md, made of the schema: every key, and how it is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from asgiri.config.decode import expected
from asgiri.config.keys import keys_of
from asgiri.config.notation import written
from asgiri.config.sample import GENERATED
from asgiri.config.schema import Config
from asgiri.config.settings import COMMON_VARIABLES, variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asgiri.config.keys import Key

_HEAD = f"""\
<!-- {GENERATED} -->

# Configuration reference

Every key of the file. The file is what `-c` or `ASGIRI_CONFIG` names, else `asgiri.yaml` in the working directory,
else `/etc/asgiri/asgiri.yaml`, else none: every key has a default, or belongs to something that has.

A flag goes over an environment variable, a variable over the file, the file over the default. Every key has a
variable, its path with two underscores between the levels, and `--set` as a flag: `timeouts.keep_alive` is
`ASGIRI_TIMEOUTS__KEEP_ALIVE=30s` and `--set timeouts.keep_alive=30s`. A list, a map or a section is given as YAML:
`ASGIRI_LISTEN='[{{bind: 0.0.0.0:8000}}]'`. An empty variable counts as none,
and what Kubernetes sets for a Service of the name `asgiri` (`ASGIRI_SERVICE_HOST`) is not ours.

- `asgiri --check-config` says all that is wrong, `asgiri --print-config` what every key is and where that comes from.
- Durations are `30s`, `5m`, `1h30m`, `100ms` or a number of seconds, sizes `64KiB`, `16MiB`, `10MB` or a number of
  bytes. `0` turns a limit or a timeout off.
- In the values of the file `${{NAME}}` is the environment variable NAME, and `${{NAME:-text}}` the text where that is
  empty or not set; without a text, a variable that is not set is an error. `$${{` is `${{` itself.
- A section with nothing in it, all of it commented out, is as good as none.
- The file is the plain part of YAML 1.2: `on` and `off` are texts; anchors, tags and merge keys are refused.
- An editor knows the keys by [the JSON Schema](../../config/asgiri.schema.json) (`asgiri --schema`):
  `# yaml-language-server: $schema=./asgiri.schema.json` at the top of a file says so to the common ones.
- [config/](../../config) has files to begin with: [all keys](../../config/asgiri.yaml),
  [development](../../config/development.yaml), [production](../../config/production.yaml) and
  [containers](../../config/container.yaml).

"Reload" says whether a [reload](../operations/running.md#signals-to-the-master) takes a changed value in.
"""

_TOP = "The application, and what all of its answers get."

# Where more is said: section -> (page, of what).
_SEE = {
    "": [("running.md#applications-that-are-not-asgi-3", "interfaces"), ("running.md#what-workers-inherit", "env")],
    "listen[]": [("sockets.md", "addresses"), ("running.md#http2", "what a listener speaks")],
    "listen[].tls": [("tls.md", "TLS")],
    "workers": [("running.md", "reloads, stops, hangs and recycling"), ("health.md", "drain_delay")],
    "timeouts": [("running.md#what-ends-a-connection", "what ends a connection")],
    "limits": [("running.md#when-connections-are-too-many", "when connections are too many")],
    "http2": [("running.md#http2", "HTTP/2")],
    "websocket": [("running.md#websocket", "WebSocket")],
    "log": [("logs.md", "logs")],
    "log.access": [("access_log.md", "the access log")],
    "admin": [("health.md", "health")],
    "control": [("control.md", "asgirictl")],
    "process": [("privileges.md", "privileges")],
}


class Section(NamedTuple):
    """A section as the page has it: its dotted path (``listen[].tls.sni.NAME``), and its anchor."""

    path: str
    struct: type[msgspec.Struct]
    anchor: str


def reference(flags: Mapping[str, Sequence[str]]) -> str:
    """The page. ``flags``: the flags that set a key, by its path (``workers.count`` -> ``-w``, ``--workers``)."""
    found = list(sections(Section("", Config, "top")))
    contents = [f"- [{_title(one.path)}](#{one.anchor})" for one in found]
    return "\n".join([_HEAD, *contents, *(line for one in found for line in _section(one, flags))]) + "\n"


def sections(top: Section) -> Iterator[Section]:
    """The section and those within it, in the order of their declaration."""
    yield top
    for name, key in keys_of(top.struct).items():
        path = f"{top.path}.{name}" if top.path else name
        element = key if key.container in (None, "section") else key.element()
        if element.section:
            entry = {"list": "[]", "map": ".NAME"}.get(key.container or "", "")
            yield from sections(Section(path + entry, element.section, _below(key, path)))


def _section(section: Section, flags: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from ("", f'## <a id="{section.anchor}"></a>{_title(section.path)}', "", _intro(section))
    for name, key in keys_of(section.struct).items():
        path = f"{section.path}.{name}" if section.path else name
        if key.container != "section" or key.optional:
            yield from _key(key, path, flags.get(path, ()))


def _intro(section: Section) -> str:
    """What the section is, and where there is more about it."""
    _, _, text = (section.struct.__doc__ or "").partition(": ")
    text = f"{text[:1].upper()}{text[1:]}" if section.path else _TOP
    see = _SEE.get(section.path, ())
    links = [f"[{what}](../operations/{page})" for page, what in see]
    return f"{text} More: {', '.join(links)}." if links else text


def _key(key: Key, path: str, flags: Sequence[str]) -> Iterator[str]:
    yield from ("", f'### <a id="{_anchor(path)}"></a>`{path}`', "", str(key.meta.description), "")
    yield f"- expected: {_expected(key, path)}"
    yield f"- default: {'none, it must be given' if key.default is msgspec.NODEFAULT else f'`{_default(key)}`'}"
    if key.examples:
        yield f"- example: {', '.join(f'`{example}`' for example in key.examples)}"
    ways = [f"`{way}`" for way in (*_environment(path), *flags)]
    if ways:
        yield f"- set by: {', '.join(ways)}"
    yield f"- reload: {'leaves it; an upgrade or a restart takes it' if key.stays else 'takes it'}"


def _environment(path: str) -> list[str]:
    """The variables that set a key; none for what is within a list or a map."""
    own = [name for name, one in variables().items() if one == path]
    return [*own, *(name for name, one in COMMON_VARIABLES.items() if one == path)]


def _expected(key: Key, path: str) -> str:
    if key.section:
        text = f"a [section](#{_below(key, path)})"
    elif key.container:
        element = key.element()
        each = f"a [section](#{_below(key, path)})" if element.section else expected(element)
        least = " of one at least" if key.meta.min_length else ""
        text = f"{'a list' if key.container == 'list' else 'a mapping of names'}{least}, each {each}"
    else:
        text = expected(key)
    return f"{text}, or null" if key.optional else text


def _default(key: Key) -> str:
    """The default as it stands in the file; of a list of sections, what they say themselves."""
    if key.container == "list" and (section := key.element().section):
        keys = keys_of(section)
        entries = [
            ", ".join(
                f"{name}: {written(keys[name], getattr(one, name))}"
                for name in keys
                if getattr(one, name) != keys[name].default
            )
            for one in (key.default if isinstance(key.default, tuple) else ())
        ]
        return f"[{', '.join(f'{{{entry}}}' for entry in entries)}]"
    return written(key, key.default)


def _title(path: str) -> str:
    return f"`{path}`" if path else "The top of the file"


def _anchor(path: str) -> str:
    """What a link to a key says: its path, without what a link cannot have."""
    return path.replace("[]", "")


def _below(key: Key, path: str) -> str:
    """What a link to the section that is in a key says. Only a section that is always there has no place beside it."""
    if key.section and not key.optional:
        return _anchor(path)
    return f"{_anchor(path)}.{'NAME' if key.container == 'map' else 'keys'}"
