"""Rows about single frames: their sizes, streams, flags and padding, and what the settings may say."""

from __future__ import annotations

import struct

from asgiri.codec.events import Body, End, GoAway, PingAck, Reset
from asgiri.codec.h2_wire import Http2Options
from tests.codec.h2_rows import broken, reset, row
from tests.codec.h2_wire_tools import (
    ACK,
    CONNECT_PROTOCOL,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    FULL,
    GET,
    GOAWAY,
    HEADER_LIST,
    HEADERS,
    INITIAL_WINDOW,
    MAX_STREAMS,
    MOST,
    NO_PRIORITIES,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRI,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    TABLE_SIZE,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Data,
    Ping,
    Pong,
    SettingsAck,
    answered,
    answers,
    block,
    data,
    frame,
    goaway,
    head,
    ping,
    post,
    priority,
    priority_update,
    request,
    rst,
    settings,
    window,
)

UPLOAD = head(1, POST, False)
ALL_FLAGS = 0xFF
RESERVED = 1 << 31

PREFACES = [
    row("the preface alone", PREFACE, sent=[SettingsAck()], behind=False),
    row("the preface and a request", PREFACE + head(1), events=[request()], sent=[SettingsAck()], behind=False),
    row(
        "a preface whose SETTINGS say something",
        PRI + settings({TABLE_SIZE: 0, ENABLE_PUSH: 0, MAX_STREAMS: 9, INITIAL_WINDOW: 1 << 20}),
        sent=[SettingsAck()],
        behind=False,
    ),
    broken("HTTP/1.1 where the preface should be", PROTOCOL_ERROR, b"GET / HTTP/1.1\r\n\r\n", behind=False),
    broken("a preface with a wrong last byte", PROTOCOL_ERROR, PRI[:-1] + b"\r", behind=False),
    broken("a preface with a wrong first byte", PROTOCOL_ERROR, b"X", behind=False),
    broken("frames without a preface", PROTOCOL_ERROR, settings() + head(1), behind=False),
    broken("the preface in small letters", PROTOCOL_ERROR, PRI.lower(), behind=False),
    broken("the preface twice", FRAME_SIZE_ERROR, PREFACE + PRI, sent=[SettingsAck()], behind=False),
    *(
        broken(f"{name} first behind the preface", PROTOCOL_ERROR, PRI + wire, behind=False)
        for name, wire in {
            "a request": head(1),
            "PING": ping(),
            "WINDOW_UPDATE": window(0, 1),
            "GOAWAY": goaway(),
            "an unknown frame": frame(0xAA),
            "PRIORITY": priority(1),
        }.items()
    ),
    broken(
        "a SETTINGS acknowledgement first behind the preface",
        PROTOCOL_ERROR,
        PRI + settings(flags=ACK),
        behind=False,
        why="section 3.4 wants the peer's own SETTINGS first, and an acknowledgement is not that",
    ),
]

TOO_LARGE = [
    broken(
        f"{name} larger than SETTINGS_MAX_FRAME_SIZE",
        FRAME_SIZE_ERROR,
        before + frame(kind, flags, stream_id, b"", FULL + 1),
        events=[post()] if before else [],
        last=1 if before else 0,
        why="section 4.2 lets some of these be stream errors; to skip up to 16 MiB for a peer that was told is no duty",
    )
    for name, kind, flags, stream_id, before in [
        ("DATA", DATA, 0, 1, UPLOAD),
        ("HEADERS", HEADERS, END_HEADERS, 1, b""),
        ("PRIORITY", PRIORITY, 0, 1, b""),
        ("RST_STREAM", RST_STREAM, 0, 1, UPLOAD),
        ("SETTINGS", SETTINGS, 0, 0, b""),
        ("PUSH_PROMISE", PUSH_PROMISE, 0, 1, b""),
        ("PING", PING, 0, 0, b""),
        ("GOAWAY", GOAWAY, 0, 0, b""),
        ("WINDOW_UPDATE", WINDOW_UPDATE, 0, 0, b""),
        ("PRIORITY_UPDATE", PRIORITY_UPDATE, 0, 0, b""),
        ("an unknown frame", 0xAA, 0, 0, b""),
        ("DATA on an idle stream", DATA, 0, 1, b""),
    ]
]

WRONG_SIZES = [
    *(
        broken(
            f"RST_STREAM of {size} bytes",
            FRAME_SIZE_ERROR,
            UPLOAD + frame(RST_STREAM, 0, 1, bytes(size)),
            events=[post()],
            last=1,
        )
        for size in (0, 3, 5, 8)
    ),
    *(
        broken(f"PING of {size} bytes, flags {flags}", FRAME_SIZE_ERROR, frame(PING, flags, 0, bytes(size)))
        for size in (0, 7, 9, 16)
        for flags in (0, ACK)
    ),
    *(broken(f"GOAWAY of {size} bytes", FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, bytes(size))) for size in (0, 4, 7)),
    *(
        broken(
            f"WINDOW_UPDATE of {size} bytes on the connection",
            FRAME_SIZE_ERROR,
            frame(WINDOW_UPDATE, 0, 0, bytes(size)),
        )
        for size in (0, 3, 5, 8)
    ),
    *(
        broken(
            f"WINDOW_UPDATE of {size} bytes on a stream",
            FRAME_SIZE_ERROR,
            UPLOAD + frame(WINDOW_UPDATE, 0, 1, bytes(size)),
            events=[post()],
            last=1,
        )
        for size in (0, 3, 5)
    ),
    *(
        broken(f"SETTINGS of {size} bytes", FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, bytes(size)))
        for size in (1, 5, 7, 11)
    ),
    *(
        broken(f"a SETTINGS acknowledgement of {size} bytes", FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, bytes(size)))
        for size in (1, 6)
    ),
    *(
        reset(
            f"PRIORITY of {size} bytes on an open stream",
            FRAME_SIZE_ERROR,
            UPLOAD + frame(PRIORITY, 0, 1, bytes(size)),
            events=[post()],
        )
        for size in (0, 4, 6, 10)
    ),
    broken(
        "PRIORITY of 4 bytes on an idle stream",
        FRAME_SIZE_ERROR,
        frame(PRIORITY, 0, 1, bytes(4)),
        why="section 6.3 makes it a stream error, and section 6.4 forbids RST_STREAM for an idle stream",
    ),
    *(
        broken(
            f"HEADERS with PADDED and {size} bytes",
            FRAME_SIZE_ERROR,
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, bytes(size)),
        )
        for size in (0,)
    ),
    *(
        broken(
            f"HEADERS with PRIORITY and {size} bytes",
            FRAME_SIZE_ERROR,
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, bytes(size)),
        )
        for size in (0, 4)
    ),
    broken(
        "HEADERS with PADDED and PRIORITY and 5 bytes",
        FRAME_SIZE_ERROR,
        frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY | PADDED, 1, bytes(5)),
    ),
    broken(
        "DATA with PADDED and no bytes",
        FRAME_SIZE_ERROR,
        UPLOAD + frame(DATA, PADDED, 1),
        events=[post()],
        last=1,
        why="section 4.2 lets it be a stream error; one rule for all frames that are too short for their own fields",
    ),
    *(
        broken(
            f"PRIORITY_UPDATE of {size} bytes",
            FRAME_SIZE_ERROR,
            frame(PRIORITY_UPDATE, 0, 0, bytes(size)),
            why="RFC 9218 section 7.1 names no code for one without its stream; RFC 9113 section 4.2 does",
        )
        for size in (0, 3)
    ),
]

WRONG_STREAMS = [
    *(
        broken(f"{name} on stream 0", PROTOCOL_ERROR, wire)
        for name, wire in {
            "DATA": data(0, b"x"),
            "empty DATA": data(0),
            "HEADERS": head(0),
            "HEADERS without an end": head(0, flags=0),
            "PRIORITY": priority(0, 1),
            "RST_STREAM": rst(0),
            "CONTINUATION": frame(CONTINUATION, END_HEADERS, 0, block(GET)),
            "PUSH_PROMISE": frame(PUSH_PROMISE, END_HEADERS, 0, struct.pack(">L", 2) + block(GET)),
        }.items()
    ),
    *(
        broken(f"{name} on stream 1", PROTOCOL_ERROR, wire)
        for name, wire in {
            "SETTINGS": frame(SETTINGS, 0, 1),
            "a SETTINGS acknowledgement": frame(SETTINGS, ACK, 1),
            "PING": frame(PING, 0, 1, bytes(8)),
            "GOAWAY": frame(GOAWAY, 0, 1, bytes(8)),
            "PRIORITY_UPDATE": priority_update(1, b"u=1", on=1),
        }.items()
    ),
    broken(
        "SETTINGS of a wrong size on stream 1",
        PROTOCOL_ERROR,
        frame(SETTINGS, 0, 1, bytes(5)),
        why="both are wrong; the stream is looked at before the size",
    ),
    broken(
        "PING of a wrong size on stream 1",
        PROTOCOL_ERROR,
        frame(PING, 0, 1, bytes(5)),
        why="both are wrong; the stream is looked at before the size",
    ),
    broken("a push promised by a client", PROTOCOL_ERROR,
           head(1) + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">L", 2) + block(GET)),
           events=[request()], last=1),
    broken("an empty PUSH_PROMISE", PROTOCOL_ERROR, frame(PUSH_PROMISE, END_HEADERS, 1),
           why="a client has none to send (section 8.4), of whatever size"),
    *(broken(f"a request on stream {stream_id}", PROTOCOL_ERROR, head(stream_id)) for stream_id in (2, 100)),
    *(
        broken(f"{name} on stream 2, which is idle for ever", PROTOCOL_ERROR, wire)
        for name, wire in {"DATA": data(2, b"x"), "RST_STREAM": rst(2), "WINDOW_UPDATE": window(2, 1)}.items()
    ),
]  # fmt: skip

FLAGS = [
    *(
        row(f"the flags {flags:#04x} of a request", frame(HEADERS, flags, 1, block(GET)), events=[request()])
        for flags in (0x05, 0x05 | 0x02, 0x05 | 0x10, 0x05 | 0x40, 0x05 | 0x80, 0x05 | 0xD2)
    ),
    row(
        "unknown flags of DATA",
        UPLOAD + frame(DATA, 0xF6 | END_STREAM, 1, b"abc"),
        events=[post(), Body(1, b"abc"), End(1, [])],
    ),
    row("unknown flags of RST_STREAM", head(1) + frame(RST_STREAM, ALL_FLAGS, 1, b"\0\0\0\x08"),
        events=[request(), Reset(1, "", 8)]),
    row("unknown flags of SETTINGS", frame(SETTINGS, 0xFE), sent=[SettingsAck()]),
    row("unknown flags of a SETTINGS acknowledgement", frame(SETTINGS, ALL_FLAGS)),
    row("unknown flags of PING", frame(PING, 0xFE, 0, b"abcdefgh"), sent=[Pong(b"abcdefgh")]),
    row("unknown flags of WINDOW_UPDATE", frame(WINDOW_UPDATE, ALL_FLAGS, 0, b"\0\0\0\1")),
    row("unknown flags of PRIORITY", frame(PRIORITY, ALL_FLAGS, 1, bytes(5))),
    row("unknown flags of GOAWAY", frame(GOAWAY, ALL_FLAGS, 0, bytes(8)), events=[GoAway(0, 0)]),
    row(
        "unknown flags of CONTINUATION",
        frame(HEADERS, END_STREAM, 1, block(GET)[:9]) + frame(CONTINUATION, ALL_FLAGS, 1, block(GET)[9:]),
        events=[request()],
        why="END_STREAM, PADDED and PRIORITY mean nothing on it (section 6.10)",
    ),
    row("the reserved bit of a request's stream", head(1 | RESERVED), events=[request()]),
    row("the reserved bit of DATA's stream", UPLOAD + data(1 | RESERVED, b"x", True),
        events=[post(), Body(1, b"x"), End(1, [])]),
    row("the reserved bit of the connection's stream", frame(PING, 0, RESERVED, b"abcdefgh"), sent=[Pong(b"abcdefgh")]),
    row("the reserved bit of a window's increment", frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\1")),
    broken("an increment that is the reserved bit alone", PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\0")),
    row("the reserved bit of GOAWAY's stream", goaway(RESERVED | 5), events=[GoAway(0, 5)]),
    row("the reserved bit of PRIORITY_UPDATE's stream", priority_update(RESERVED | 1, b"u=1") + head(1),
        events=[request()]),
]  # fmt: skip

PADDING = [
    *(row(f"a request with {n} bytes of padding", head(1, padding=n), events=[request()]) for n in (0, 1, 255)),
    *(
        row(f"DATA with {n} bytes of padding", UPLOAD + data(1, b"abc", True, n),
            events=[post(), Body(1, b"abc"), End(1, [])])
        for n in (0, 1, 255)
    ),
    row("DATA of padding alone", UPLOAD + data(1, b"", False, 9) + data(1, b"x", True),
        events=[post(), Body(1, b"x"), End(1, [])]),
    row("DATA of padding alone, and the end", UPLOAD + data(1, b"", True, 9), events=[post(), End(1, [])]),
    row("padding that is not zero", UPLOAD + frame(DATA, PADDED | END_STREAM, 1, b"\x02a\xff\xff"),
        events=[post(), Body(1, b"a"), End(1, [])],
        why="section 6.1 lets it be refused; nobody is helped by that"),
    broken("DATA with as much padding as it is long", PROTOCOL_ERROR, UPLOAD + frame(DATA, PADDED, 1, b"\x04abc"),
           events=[post()], last=1),
    broken("DATA with more padding than it is long", PROTOCOL_ERROR, UPLOAD + frame(DATA, PADDED, 1, b"\xffabc"),
           events=[post()], last=1),
    broken("DATA of one byte that is the length of padding", PROTOCOL_ERROR, UPLOAD + frame(DATA, PADDED, 1, b"\x01"),
           events=[post()], last=1),
    broken("HEADERS with as much padding as it is long", PROTOCOL_ERROR,
           frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b"\x04abc")),
    broken("HEADERS with more padding than is left behind the priority", PROTOCOL_ERROR,
           frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS | END_STREAM, 1, b"\x04" + bytes(5) + b"abc")),
    row("HEADERS with padding and priority", head(1, priority=bytes(4) + b"\x10", padding=3), events=[request()]),
    row(
        "HEADERS of padding alone, the block behind it",
        frame(HEADERS, PADDED | END_STREAM, 1, b"\x03" + bytes(3)) + frame(CONTINUATION, END_HEADERS, 1, block(GET)),
        events=[request()],
    ),
]  # fmt: skip

UNKNOWN = [
    *(row(f"a frame of type {kind:#04x}", frame(kind, 0, 0, b"hello") + head(1), events=[request()])
      for kind in (0x0A, 0x0B, 0x0C, 0x42, 0xFF)),
    row("an unknown frame on an idle stream", frame(0x42, 0, 7, b"hello") + head(1), events=[request()]),
    row("an unknown frame on an even stream", frame(0x42, 0, 8, b"hello") + head(1), events=[request()]),
    row("an unknown frame on an open stream", UPLOAD + frame(0x42, ALL_FLAGS, 1, b"hello") + data(1, b"", True),
        events=[post(), End(1, [])]),
    row("an unknown frame of full size", frame(0x42, 0, 0, bytes(FULL)) + head(1), events=[request()]),
    row("an empty unknown frame", frame(0x42) + head(1), events=[request()]),
    row("ALTSVC from a client", frame(0x0A, 0, 0, b"\0\1ab") + head(1), events=[request()],
        why="RFC 7838 section 4: a server ignores it"),
    row("ORIGIN from a client", frame(0x0C, 0, 1, b"\0\1a") + head(1), events=[request()],
        why="RFC 8336 section 2: a server ignores it"),
]  # fmt: skip

SETTINGS_ROWS = [
    row("empty SETTINGS", settings(), sent=[SettingsAck()]),
    row("SETTINGS three times", settings() * 3, sent=[SettingsAck()] * 3),
    row("an acknowledgement that nobody waits for", settings(flags=ACK),
        why="RFC 9113 says nothing of it; it does no harm, and is paid for as a SETTINGS frame"),
    *(
        row(f"SETTINGS {name}: {value}", settings({setting: value}) + head(1), answers(1),
            events=[request()], sent=[SettingsAck(), answered(1, 200), Data(1, b"ok", True)])
        for name, setting, values in [
            ("HEADER_TABLE_SIZE", TABLE_SIZE, (0, 1, 4096, 65536, 2**32 - 1)),
            ("ENABLE_PUSH", ENABLE_PUSH, (0, 1)),
            ("MAX_CONCURRENT_STREAMS", MAX_STREAMS, (0, 1, 2**32 - 1)),
            ("INITIAL_WINDOW_SIZE", INITIAL_WINDOW, (2, 65535, MOST)),
            ("MAX_FRAME_SIZE", FRAME_SIZE, (FULL, FULL + 1, 2**24 - 1)),
            ("MAX_HEADER_LIST_SIZE", HEADER_LIST, (0, 1, 2**32 - 1)),
            ("ENABLE_CONNECT_PROTOCOL", CONNECT_PROTOCOL, (0, 1)),
            ("NO_RFC7540_PRIORITIES", NO_PRIORITIES, (0, 1)),
            ("0", 0, (0, 2**32 - 1)),
            ("7", 7, (0, 7)),
            ("0xffff", 0xFFFF, (0, 2**32 - 1)),
        ]
        for value in values
    ),
    *(
        broken(f"SETTINGS {name}: {value}", code, settings({setting: value}))
        for name, setting, code, values in [
            ("ENABLE_PUSH", ENABLE_PUSH, PROTOCOL_ERROR, (2, 2**32 - 1)),
            ("INITIAL_WINDOW_SIZE", INITIAL_WINDOW, FLOW_CONTROL_ERROR, (MOST + 1, 2**32 - 1)),
            ("MAX_FRAME_SIZE", FRAME_SIZE, PROTOCOL_ERROR, (0, 1, FULL - 1, 2**24, 2**32 - 1)),
            ("ENABLE_CONNECT_PROTOCOL", CONNECT_PROTOCOL, PROTOCOL_ERROR, (2,)),
            ("NO_RFC7540_PRIORITIES", NO_PRIORITIES, PROTOCOL_ERROR, (2,)),
        ]
        for value in values
    ),
    row("one setting twice, the last one counts",
        settings([(INITIAL_WINDOW, 0), (INITIAL_WINDOW, 2)]) + head(1), answers(1),
        events=[request()], sent=[SettingsAck(), answered(1, 200), Data(1, b"ok", True)]),
    broken("one setting twice, the first time illegal", PROTOCOL_ERROR,
           settings([(FRAME_SIZE, 1), (FRAME_SIZE, FULL)]),
           why="each value is looked at as it comes (section 6.5.3)"),
    broken("a bad setting behind a good one", PROTOCOL_ERROR, settings([(TABLE_SIZE, 1), (ENABLE_PUSH, 2)])),
    row("SETTINGS in the middle of a body", UPLOAD + data(1, b"a") + settings() + data(1, b"b", True),
        events=[post(), Body(1, b"ab"), End(1, [])], sent=[SettingsAck()]),
]  # fmt: skip

CONNECTION = [
    row("PING", ping(b"abcdefgh"), sent=[Pong(b"abcdefgh")]),
    row("two PINGs, answered in their order", ping(b"abcdefgh") + ping(b"12345678"),
        sent=[Pong(b"abcdefgh"), Pong(b"12345678")]),
    row("a PING acknowledgement", lambda codec: codec.ping(b"12345678"), ping(b"12345678", ACK),
        events=[PingAck(b"12345678")], sent=[Ping(b"12345678")]),
    row("a PING in the middle of a body", UPLOAD + data(1, b"a") + ping() + data(1, b"b", True),
        events=[post(), Body(1, b"ab"), End(1, [])], sent=[Pong(b"12345678")]),
    row("GOAWAY", goaway(), events=[GoAway(0, 0)]),
    row("GOAWAY with a code and debug data", goaway(3, 11, b"calm down"), events=[GoAway(11, 3)]),
    row("GOAWAY with an unknown code", goaway(0, 2**32 - 1), events=[GoAway(2**32 - 1, 0)]),
    row("GOAWAY twice", goaway(MOST) + goaway(0), events=[GoAway(0, MOST), GoAway(0, 0)]),
    row("GOAWAY, and the request before it is answered", head(1) + goaway(), answers(1),
        events=[request(), GoAway(0, 0)], sent=[answered(1, 200), Data(1, b"ok", True)]),
    row("GOAWAY, and the body before it goes on", UPLOAD + goaway() + data(1, b"x", True), answers(1),
        events=[post(), GoAway(0, 0), Body(1, b"x"), End(1, [])], sent=[answered(1, 200), Data(1, b"ok", True)]),
    row("a request behind GOAWAY", goaway() + head(1), answers(1),
        events=[GoAway(0, 0), request()], sent=[answered(1, 200), Data(1, b"ok", True)],
        why="section 6.8 forbids the streams of the receiver, not those of the sender; it is served"),
    row("PRIORITY on an idle stream", priority(5) + head(1), events=[request()]),
    row("PRIORITY on an even stream", priority(4) + head(1), events=[request()]),
    row("PRIORITY on an open stream", UPLOAD + priority(1, 3, 255) + data(1, b"", True), events=[post(), End(1, [])]),
    row("PRIORITY on itself", UPLOAD + priority(1, 1) + data(1, b"", True), events=[post(), End(1, [])],
        why="an error of RFC 7540; RFC 9113 section 5.3.2 deprecates all of it"),
    row("HEADERS with a priority on itself", head(1, priority=b"\x80\0\0\1\x10"), events=[request()],
        why="an error of RFC 7540; RFC 9113 section 5.3.2 deprecates all of it"),
    row("PRIORITY_UPDATE of an idle stream", priority_update(1, b"u=1, i") + head(1), events=[request()]),
    row("PRIORITY_UPDATE of an open stream", head(1) + priority_update(1, b"u=7"), answers(1),
        events=[request()], sent=[answered(1, 200), Data(1, b"ok", True)]),
    row("PRIORITY_UPDATE of a closed stream", head(1), answers(1), priority_update(1, b"u=7"),
        events=[request()], sent=[answered(1, 200), Data(1, b"ok", True)]),
    row("PRIORITY_UPDATE that is no structured field", head(1) + priority_update(1, b"\xff;;u=u"),
        events=[request()], why="RFC 9218 section 4: what cannot be parsed is ignored"),
    row("PRIORITY_UPDATE with urgency 9", head(1) + priority_update(1, b"u=9"), events=[request()]),
    broken("PRIORITY_UPDATE of stream 0", PROTOCOL_ERROR, priority_update(0, b"u=1"),
           why="RFC 9218 section 7.1"),
]  # fmt: skip

LARGER = [
    row("a frame of the size that was announced", UPLOAD + data(1, b"x" * 20_000, True),
        events=[post(), Body(1, b"x" * 20_000), End(1, [])], options=Http2Options(max_frame_size=20_000)),
    broken("a frame of one byte more", FRAME_SIZE_ERROR, UPLOAD + frame(DATA, 0, 1, b"", 20_001),
           events=[post()], last=1, options=Http2Options(max_frame_size=20_000)),
]  # fmt: skip

ROWS = [
    *PREFACES, *TOO_LARGE, *WRONG_SIZES, *WRONG_STREAMS, *FLAGS, *PADDING, *UNKNOWN, *SETTINGS_ROWS, *CONNECTION,
    *LARGER,
]  # fmt: skip
