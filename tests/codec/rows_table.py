"""The one table of requests, from its parts."""

from __future__ import annotations

from tests.codec import rows_chunks, rows_ends, rows_fields, rows_lengths, rows_limits, rows_lines

PARTS = (rows_lines, rows_fields, rows_lengths, rows_chunks, rows_limits)
ACCEPTED = [row for part in PARTS for row in part.ACCEPTED]
REFUSED = [row for part in PARTS for row in part.REFUSED]
ENDED = rows_ends.ENDED
