"""Rows about the life of a stream (RFC 9113 section 5.1): each state against each frame that may come in it."""

from __future__ import annotations

from asgiri.codec.events import Body, End, Event, Reset
from asgiri.codec.h2_wire import Http2Options
from tests.codec.h2_rows import Row, broken, reset, row
from tests.codec.h2_wire_tools import (
    CANCEL,
    CONTINUATION,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GET,
    MOST,
    NO_ERROR,
    POST,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Away,
    Data,
    Rst,
    Sent,
    Step,
    answered,
    answers,
    block,
    data,
    frame,
    head,
    post,
    priority,
    priority_update,
    request,
    rst,
    sends_body,
    sends_head,
    window,
)

# What may come on a stream, in any of its states.
HEAD = head(1)
OPEN_HEAD = head(1, POST, False)
TRAILERS = head(1, [(b"x", b"y")])
DATA_ = data(1, b"abc")
LAST_DATA = data(1, b"abc", True)
EMPTY_DATA = data(1)
RST = rst(1)
WINDOW = window(1, 1)
NO_WINDOW = window(1, 0)
TOO_MUCH_WINDOW = window(1, MOST)
IGNORED_EVERYWHERE = {
    "PRIORITY": priority(1),
    "PRIORITY_UPDATE": priority_update(1, b"u=1"),
    "an unknown frame": frame(0x42, 0xFF, 1, b"abc"),
}

OPENED: tuple[Event, ...] = (post(),)
ASKED: tuple[Event, ...] = (request(),)
OK: tuple[Sent, ...] = (answered(1, 200), Data(1, b"ok", True))
LOST_TRACK = "section 5.1 lets a frame on a closed stream be an error of either kind; a peer that knows so little of it"
LOST_TRACK += " is not to be trusted with the others"

IDLE = [
    row("idle: a request", HEAD, events=ASKED),
    row("idle: a request with a body", OPEN_HEAD, events=OPENED),
    broken("idle: DATA", PROTOCOL_ERROR, DATA_),
    broken("idle: the last DATA", PROTOCOL_ERROR, LAST_DATA),
    broken("idle: RST_STREAM", PROTOCOL_ERROR, RST),
    broken("idle: WINDOW_UPDATE", PROTOCOL_ERROR, WINDOW),
    broken("idle: WINDOW_UPDATE of 0", PROTOCOL_ERROR, NO_WINDOW),
    broken("idle: CONTINUATION", PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, block(GET))),
    *(row(f"idle: {name}", wire) for name, wire in IGNORED_EVERYWHERE.items()),
    row("a stream begins at any odd number", head(2**31 - 1), events=[request(2**31 - 1)]),
    row("streams need not follow on each other", head(5) + head(101), events=[request(5), request(101)]),
    broken("a stream with a lower number than the last, which was left out", PROTOCOL_ERROR, head(5) + head(3),
           events=[request(5)], last=5, why="section 5.1.1: opening 5 closed 3"),
    broken("a stream left out: DATA", STREAM_CLOSED, head(5) + data(3, b"x"), events=[request(5)], last=5,
           why=LOST_TRACK),
    row("a stream left out: RST_STREAM", head(5) + rst(3), events=[request(5)]),
    row("a stream left out: WINDOW_UPDATE", head(5) + window(3, 1), events=[request(5)]),
    broken("DATA on a stream above the last", PROTOCOL_ERROR, head(5) + data(7, b"x"), events=[request(5)], last=5),
]  # fmt: skip

OPEN = [
    row("open: DATA", OPEN_HEAD + DATA_, events=[*OPENED, Body(1, b"abc")]),
    row("open: the last DATA", OPEN_HEAD + LAST_DATA, events=[*OPENED, Body(1, b"abc"), End(1, [])]),
    row("open: empty DATA", OPEN_HEAD + EMPTY_DATA, events=OPENED),
    row("open: empty last DATA", OPEN_HEAD + data(1, b"", True), events=[*OPENED, End(1, [])]),
    row("open: trailers", OPEN_HEAD + TRAILERS, events=[*OPENED, End(1, [(b"x", b"y")])]),
    reset("open: trailers that do not end", PROTOCOL_ERROR, OPEN_HEAD + head(1, [(b"x", b"y")], False), events=OPENED),
    reset("open: another request", PROTOCOL_ERROR, OPEN_HEAD + HEAD, events=OPENED),
    row("open: RST_STREAM", OPEN_HEAD + RST, events=[*OPENED, Reset(1, "", CANCEL)]),
    row("open: WINDOW_UPDATE", OPEN_HEAD + WINDOW, events=OPENED),
    reset("open: WINDOW_UPDATE of 0", PROTOCOL_ERROR, OPEN_HEAD + NO_WINDOW, events=OPENED),
    reset("open: WINDOW_UPDATE of 0 after DATA", PROTOCOL_ERROR, OPEN_HEAD + DATA_ + NO_WINDOW,
          events=[*OPENED, Body(1, b"abc")]),
    *(row(f"open: {name}", OPEN_HEAD + wire, events=OPENED) for name, wire in IGNORED_EVERYWHERE.items()),
    row("three streams side by side",
        head(1, POST, False) + head(3, POST, False) + data(1, b"a") + head(5),
        data(3, b"b", True) + data(1, b"c", True),
        events=[post(), post(3), Body(1, b"a"), request(5), Body(3, b"b"), End(3, []), Body(1, b"c"), End(1, [])]),
]  # fmt: skip

HALF_CLOSED_REMOTE = [
    reset("the request is whole: DATA", STREAM_CLOSED, HEAD + DATA_, events=ASKED),
    reset("the request is whole: empty DATA", STREAM_CLOSED, HEAD + EMPTY_DATA, events=ASKED),
    reset("the request is whole: the last DATA", STREAM_CLOSED, HEAD + LAST_DATA, events=ASKED),
    reset("the request is whole: another", STREAM_CLOSED, HEAD + HEAD, events=ASKED),
    reset("the request is whole: trailers", STREAM_CLOSED, HEAD + TRAILERS, events=ASKED),
    reset("the body is whole: DATA", STREAM_CLOSED, OPEN_HEAD + LAST_DATA + DATA_,
          events=[*OPENED, Body(1, b"abc"), End(1, [])]),
    reset("the trailers were there: trailers", STREAM_CLOSED, OPEN_HEAD + TRAILERS + TRAILERS,
          events=[*OPENED, End(1, [(b"x", b"y")])]),
    row("the request is whole: RST_STREAM", HEAD + RST, events=[*ASKED, Reset(1, "", CANCEL)]),
    row("the request is whole: WINDOW_UPDATE", HEAD + WINDOW, events=ASKED),
    reset("the request is whole: WINDOW_UPDATE of 0", PROTOCOL_ERROR, HEAD + NO_WINDOW, events=ASKED),
    *(row(f"the request is whole: {name}", HEAD + wire, events=ASKED) for name, wire in IGNORED_EVERYWHERE.items()),
]  # fmt: skip

# The answer has begun, the request may go on.
ANSWERING: tuple[Step, ...] = (OPEN_HEAD, sends_head(1), sends_body(1, b"ok", False))
ANSWERED: tuple[Sent, ...] = (answered(1, 200), Data(1, b"ok"))
WHILE_ANSWERED = [
    row("while answered: DATA and the end", *ANSWERING, LAST_DATA, sends_body(1, b"!"),
        events=[*OPENED, Body(1, b"abc"), End(1, [])], sent=[*ANSWERED, Data(1, b"!", True)]),
    row("while answered: RST_STREAM", *ANSWERING, RST, sends_body(1, b"!"),
        events=[*OPENED, Reset(1, "", CANCEL)], sent=ANSWERED),
    row("while answered: RST_STREAM without an error", *ANSWERING, rst(1, NO_ERROR),
        events=[*OPENED, Reset(1, "", NO_ERROR)], sent=ANSWERED),
    row("while answered: RST_STREAM of an unknown code", *ANSWERING, rst(1, 0xFFFFFFFF),
        events=[*OPENED, Reset(1, "", 0xFFFFFFFF)], sent=ANSWERED),
    reset("while answered: trailers that do not end", PROTOCOL_ERROR, *ANSWERING, head(1, [(b"x", b"y")], False),
          events=OPENED, sent=ANSWERED),
]  # fmt: skip


def closed(how: str, steps: tuple[Step, ...], events: tuple[Event, ...], sent: tuple[Sent, ...]) -> list[Row]:
    """A stream that both sides have ended, or that the peer has reset, against each frame."""
    return [
        *(
            broken(f"{how}: {name}", STREAM_CLOSED, *steps, wire, events=events, sent=sent, last=1, why=LOST_TRACK)
            for name, wire in {
                "DATA": DATA_,
                "empty DATA": EMPTY_DATA,
                "the last DATA": LAST_DATA,
                "a request": HEAD,
                "trailers": TRAILERS,
            }.items()
        ),
        *(
            row(f"{how}: {name}", *steps, wire, events=events, sent=sent)
            for name, wire in {
                "RST_STREAM": RST,
                "WINDOW_UPDATE": WINDOW,
                "WINDOW_UPDATE of 0": NO_WINDOW,
                "too large a WINDOW_UPDATE": TOO_MUCH_WINDOW,
                **IGNORED_EVERYWHERE,
            }.items()
        ),
        broken(f"{how}: PRIORITY of a wrong size", FRAME_SIZE_ERROR, *steps, frame(PRIORITY, 0, 1, b"abc"),
               events=events, sent=sent, last=1, why="section 5.1 forbids RST_STREAM for a stream that is closed"),
        row(f"{how}: the next request", *steps, head(3), events=[*events, request(3)], sent=sent),
    ]  # fmt: skip


def discarding(how: str, steps: tuple[Step, ...], events: tuple[Event, ...], sent: tuple[Sent, ...]) -> list[Row]:
    """A stream that we have reset, before its request was whole, against what was on its way (section 5.1)."""
    return [
        row(f"{how}: {name}", *steps, wire, events=events, sent=sent)
        for name, wire in {
            "DATA": DATA_,
            "empty DATA": EMPTY_DATA,
            "DATA to its end": DATA_ + LAST_DATA,
            "trailers": TRAILERS,
            "DATA and trailers": DATA_ + TRAILERS,
            "RST_STREAM": RST,
            "DATA and RST_STREAM": DATA_ + RST,
            "RST_STREAM twice": RST + RST,
            "WINDOW_UPDATE": WINDOW,
            "WINDOW_UPDATE of 0": NO_WINDOW,
            "too large a WINDOW_UPDATE": TOO_MUCH_WINDOW,
            **IGNORED_EVERYWHERE,
        }.items()
    ]


CLOSED = [
    *closed("answered", (HEAD, answers(1)), ASKED, OK),
    *closed("reset by the peer", (OPEN_HEAD, RST), (*OPENED, Reset(1, "", CANCEL)), ()),
    *closed(
        "answered before the body was whole, which it is now",
        (OPEN_HEAD, sends_head(1), LAST_DATA, sends_body(1, b"ok")),
        (*OPENED, Body(1, b"abc"), End(1, [])),
        OK,
    ),
    *discarding("reset by us", (OPEN_HEAD, lambda codec: codec.reset(1, CANCEL)), OPENED, (Rst(1, CANCEL),)),
    *discarding("answered early", (OPEN_HEAD, answers(1)), OPENED, (*OK, Rst(1, NO_ERROR))),
    *discarding(
        "malformed",
        (head(1, [*POST, (b"Upper", b"case")], False),),
        (),
        (Rst(1, PROTOCOL_ERROR),),
    ),
    *discarding(
        "broken",
        (OPEN_HEAD + NO_WINDOW,),
        (*OPENED, Reset(1, "", PROTOCOL_ERROR)),
        (Rst(1, PROTOCOL_ERROR),),
    ),
]

ONE_STREAM = Http2Options(max_concurrent_streams=1)
TWO_STREAMS = Http2Options(max_concurrent_streams=2)
REFUSALS = [
    row("one stream more than may be", head(1) + head(3) + head(5), answers(1), answers(3),
        events=[request(1), request(3)],
        sent=[Rst(5, REFUSED_STREAM), *OK, answered(3, 200), Data(3, b"ok", True)], options=TWO_STREAMS),
    row("one stream more than may be, with a body",
        head(1) + head(3, POST, False) + data(3, b"abc") + data(3, b"", True),
        events=[request(1)], sent=[Rst(3, REFUSED_STREAM)], options=ONE_STREAM),
    row("one stream more than may be, malformed", head(1) + head(3, [(b"Upper", b"case")]),
        events=[request(1)], sent=[Rst(3, REFUSED_STREAM)], options=ONE_STREAM,
        why="it is refused before its fields are looked at, as it would be if they were good"),
    row("streams that are over do not count", head(1), answers(1), head(3), answers(3), head(5),
        events=[request(1), request(3), request(5)],
        sent=[*OK, answered(3, 200), Data(3, b"ok", True)], options=ONE_STREAM),
    row("streams that were reset do not count", OPEN_HEAD + RST + head(3),
        events=[*OPENED, Reset(1, "", CANCEL), request(3)], options=ONE_STREAM),
    row("a stream that is half answered counts", OPEN_HEAD, sends_head(1), head(3),
        events=OPENED, sent=[answered(1, 200), Rst(3, REFUSED_STREAM)], options=ONE_STREAM),
    row("a refused stream's fields are known to the next", head(1),
        head(3, encoded=b"\x82\x86\x84\x41\x01b\x40\x01x\x01y"), answers(1), head(5, encoded=b"\x82\x86\x84\xbf\xbe"),
        events=[request(1), request(5, headers=[(b"host", b"b"), (b"x", b"y")])],
        sent=[Rst(3, REFUSED_STREAM), *OK], options=ONE_STREAM,
        why="section 4.3: the block changes the connection's table, whatever becomes of the stream"),
]  # fmt: skip

GOING_AWAY = [
    row("we go away: a request behind it is refused", head(1), lambda codec: codec.go_away(None), head(3), answers(1),
        events=ASKED, sent=[Away(1, NO_ERROR), Rst(3, REFUSED_STREAM), *OK]),
    row("we go away: the body of one before it goes on", OPEN_HEAD, lambda codec: codec.go_away(None), LAST_DATA,
        answers(1), events=[*OPENED, Body(1, b"abc"), End(1, [])], sent=[Away(1, NO_ERROR), *OK]),
    row("we announce that we go: requests are served", lambda codec: codec.go_away(MOST), head(1), answers(1),
        events=ASKED, sent=[Away(MOST, NO_ERROR), *OK]),
    row("we announce, and then go", lambda codec: codec.go_away(MOST), head(1), lambda codec: codec.go_away(None),
        head(3), answers(1), events=ASKED,
        sent=[Away(MOST, NO_ERROR), Away(1, NO_ERROR), Rst(3, REFUSED_STREAM), *OK]),
    row("we go away with a code", lambda codec: codec.go_away(None, ENHANCE_YOUR_CALM),
        sent=[Away(0, ENHANCE_YOUR_CALM)]),
]  # fmt: skip

RESETS = [
    row("a reset drops what was held", HEAD, sends_head(1), lambda codec: codec.reset(1, CANCEL), sends_body(1, b"x"),
        events=ASKED, sent=[answered(1, 200), Rst(1, CANCEL)]),
    row("a reset twice is one", HEAD, lambda codec: codec.reset(1, CANCEL), lambda codec: codec.reset(1, 2),
        events=ASKED, sent=[Rst(1, CANCEL)]),
    row("a reset of a stream that is over is none", HEAD, answers(1), lambda codec: codec.reset(1, CANCEL),
        events=ASKED, sent=OK),
    row("a reset of a stream that the peer has reset is none", OPEN_HEAD + RST, lambda codec: codec.reset(1, CANCEL),
        events=[*OPENED, Reset(1, "", CANCEL)]),
    row("a reset of a stream that never was is none", lambda codec: codec.reset(1, CANCEL)),
    row("reset by us after the request was whole: RST_STREAM", HEAD, lambda codec: codec.reset(1, CANCEL), RST,
        events=ASKED, sent=[Rst(1, CANCEL)]),
    row("answers to a stream that the peer has reset are dropped", OPEN_HEAD + RST, sends_head(1),
        sends_body(1, b"x"), lambda codec: codec.send_trailers(1, [(b"x", b"y")]),
        lambda codec: codec.send_informational(1, 103, []), answers(1),
        events=[*OPENED, Reset(1, "", CANCEL)]),
    row("the answer of another stream than the one that was reset", HEAD + head(3) + RST, answers(3),
        events=[*ASKED, request(3), Reset(1, "", CANCEL)], sent=[answered(3, 200), Data(3, b"ok", True)]),
]  # fmt: skip

ROWS = [
    *IDLE, *OPEN, *HALF_CLOSED_REMOTE, *WHILE_ANSWERED, *CLOSED, *REFUSALS, *GOING_AWAY, *RESETS,
]  # fmt: skip
