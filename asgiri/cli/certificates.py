"""What is to be said of certificates that OpenSSL takes: their dates, their order, and who can read their keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from asgiri.errors import ConfigError
from asgiri.tls import certificates

if TYPE_CHECKING:
    from asgiri.cli.check import Tell
    from asgiri.config.schema import Tls
    from asgiri.x509 import Certificate

# Those of 90 days are renewed when 30 are left (Let's Encrypt's own advice): with 14, renewal has failed a few times.
SOON: Final = timedelta(days=14)


def check_dates(tls: Tls, key: str, warn: Tell, expired: Tell, now: datetime | None = None) -> None:
    """Tell ``expired`` of servers' certificates that do not hold now, and ``warn`` of what else the dates say.

    That of an authority in a chain is worth a warning: clients that have another way to theirs do without it.
    """
    now = now or datetime.now(UTC)
    for name, path in _chains(tls, key):
        for number, one in enumerate(_read(path, name, warn)):
            what = f'the certificate in "{path}"' if number == 0 else f'certificate {number + 1} in "{path}"'
            if wrong := _out_of_dates(one, now):
                (expired if number == 0 else warn)(name, f"{what} {wrong}")
            elif one.not_after - now < SOON:
                warn(name, f"{what} expires on {_day(one.not_after)}")
    if tls.client_ca is not None and tls.client_certs != "none":
        _check_authorities(tls.client_ca, f"{key}.client_ca", warn, now)


def check_order(tls: Tls, key: str, warn: Tell) -> None:
    """Tell of a chain in which a certificate is not that of the issuer of the one before (RFC 8446 section 4.4.2)."""
    for name, path in _chains(tls, key):
        for number, (one, other) in enumerate(pairwise(_read(path, name, warn)), start=1):
            if one.issuer != other.subject:
                what = f'certificate {number + 1} in "{path}" is not that of the issuer of certificate {number}'
                warn(name, f"{what}: some clients will not find their way to an authority that they trust")
                break


def check_modes(tls: Tls, key: str, warn: Tell) -> None:
    """Tell of private keys and passwords that others than the owner of the file may read."""
    secrets = {f"{key}.keyfile" if tls.keyfile else f"{key}.certfile": tls.keyfile or tls.certfile}
    if tls.password_file is not None:
        secrets[f"{key}.password_file"] = tls.password_file
    for server, pair in tls.sni.items():
        secrets[f"{key}.sni.{server}.keyfile"] = pair.keyfile
    for name, path in secrets.items():
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:  # that is said already
            continue
        if mode & 0o077:
            warn(name, f'others than the owner of "{path}" may use it (mode {mode:04o}): chmod 600')


def _check_authorities(path: str, key: str, warn: Tell, now: datetime) -> None:
    """One warning, however many of a bundle's have expired: some always have."""
    found = list(_read(path, key, warn))
    bad = [wrong for one in found if (wrong := _out_of_dates(one, now))]
    if bad and len(found) == 1:
        warn(key, f'the certificate in "{path}" {bad[0]}: no client that shows one of its will get in')
    elif bad:
        warn(key, f'{len(bad)} of the {len(found)} certificates in "{path}" do not hold now; the first {bad[0]}')
    elif found and (first := min(one.not_after for one in found)) - now < SOON:
        warn(key, f'a certificate in "{path}" expires on {_day(first)}')


def _chains(tls: Tls, key: str) -> Iterator[tuple[str, str]]:
    """Key and path of each file with a certificate that is shown."""
    yield f"{key}.certfile", tls.certfile
    for server, pair in tls.sni.items():
        yield f"{key}.sni.{server}.certfile", pair.certfile


def _read(path: str, key: str, warn: Tell) -> list[Certificate]:
    """The certificates. OpenSSL has taken them; what we do not understand is no reason to refuse them."""
    try:
        return certificates(path, key)
    except ConfigError as error:
        for problem in error.problems:
            warn(problem.key, f"{problem.what}; its dates are not known")
        return []


def _out_of_dates(one: Certificate, now: datetime) -> str:
    """What is wrong, as a verb phrase; empty when nothing is."""
    if now > one.not_after:
        return f"expired on {_day(one.not_after)}"
    return f"holds from {_day(one.not_before)} on, and not yet" if now < one.not_before else ""


def _day(date: datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M} UTC"
