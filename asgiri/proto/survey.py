"""Once a second: what the connections of a server come to, told to its meter. No request pays for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgiri.metrics.catalogue import metric

if TYPE_CHECKING:
    from asgiri.metrics.meter import Meter
    from asgiri.proto.connection import Shared


def survey(shared: Shared, meter: Meter) -> None:
    """Bring the meter's words up to date."""
    received, sent = meter.received, meter.sent
    ((_, kinds),) = metric("connections_open").labels
    speak = dict.fromkeys(kinds, 0)
    speak["unknown"] = shared.arriving
    for connection in shared.connections:
        speak[connection.speaks()] += 1
        received += connection.received
        sent += connection.sent
    for kind, number in speak.items():
        meter.gauge("connections_open", number, kind)
    meter.gauge("requests_in_flight", len(shared.sessions))
    meter.reached("received_bytes", received)
    meter.reached("sent_bytes", sent)
    meter.reached("connections_accepted", shared.accepted)
    meter.flush()
