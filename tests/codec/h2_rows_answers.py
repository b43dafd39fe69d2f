"""Rows about answers: their heads, content and ends, windows (RFC 9113 section 5.2) and priorities (RFC 9218)."""

from __future__ import annotations

from asgiri.codec.contract import Http2Codec
from asgiri.codec.events import Body, End, Reset
from asgiri.codec.h2_wire import Http2Options
from asgiri.types import Headers
from tests.codec.h2_rows import Row, broken, reset, row
from tests.codec.h2_wire_tools import (
    ACK,
    FLOW_CONTROL_ERROR,
    FULL,
    GET,
    HOST_A,
    INITIAL_WINDOW,
    MOST,
    NO_ERROR,
    POST,
    PREFACE,
    WINDOW,
    Data,
    Head,
    Rst,
    SettingsAck,
    Step,
    answered,
    answers,
    data,
    head,
    post,
    priority_update,
    request,
    rst,
    sends_body,
    sends_head,
    settings,
    window,
)

TEXT = (b"content-type", b"text/plain")
ASK = head(1)
ASKED = (request(),)
OPEN = head(1, POST, False)
ONE = (b"x", b"y")


def trailers(stream_id: int, fields: Headers) -> Step:
    return lambda codec: codec.send_trailers(stream_id, fields)


def hints(stream_id: int, status: int = 103, fields: Headers | None = None) -> Step:
    return lambda codec: codec.send_informational(stream_id, status, fields or [(b"link", b"</a>")])


def of(method: bytes) -> bytes:
    return head(1, [(b":method", method), *GET[1:]])


HEADS = [
    row("an answer", ASK, sends_head(1, 200, [TEXT]), sends_body(1, b"ok"),
        events=ASKED, sent=[answered(1, 200, TEXT), Data(1, b"ok", True)]),
    row("an answer at once", ASK, answers(1, 200, [TEXT]),
        events=ASKED, sent=[answered(1, 200, TEXT), Data(1, b"ok", True)]),
    row("an answer in pieces", ASK, sends_head(1), sends_body(1, b"a", False), sends_body(1, b"b", False),
        sends_body(1, b"c"), events=ASKED, sent=[answered(1, 200), Data(1, b"abc", True)]),
    row("an answer without content", ASK, sends_head(1, 404), sends_body(1, b""),
        events=ASKED, sent=[answered(1, 404, end=True)]),
    row("an answer without content at once", ASK, answers(1, 404, content=b""),
        events=ASKED, sent=[answered(1, 404, end=True)]),
    row("empty pieces are none", ASK, sends_head(1), sends_body(1, b"", False), sends_body(1, b"a", False),
        sends_body(1, b"", False), sends_body(1, b""), events=ASKED, sent=[answered(1, 200), Data(1, b"a", True)]),
    *(
        row(f"the status {status}", ASK, answers(1, status), events=ASKED,
            sent=[answered(1, status), Data(1, b"ok", True)])
        for status in (200, 206, 299, 302, 400, 418, 500, 599)
    ),
    *(
        row(f"the status {status} has no content", ASK, answers(1, status), events=ASKED,
            sent=[answered(1, status, end=True)])
        for status in (204, 304)
    ),
    *(
        row(f"the status {status} has no content in pieces", ASK, sends_head(1, status), sends_body(1, b"a", False),
            sends_body(1, b"b"), events=ASKED, sent=[answered(1, status, end=True)])
        for status in (204, 304)
    ),
    row("an answer to HEAD", of(b"HEAD"), answers(1, 200, [(b"content-length", b"2")]),
        events=[request(method="HEAD")], sent=[answered(1, 200, (b"content-length", b"2"), end=True)]),
    row("an answer to HEAD in pieces", of(b"HEAD"), sends_head(1, 200, [(b"content-length", b"2")]),
        sends_body(1, b"o", False), sends_body(1, b"k"),
        events=[request(method="HEAD")], sent=[answered(1, 200, (b"content-length", b"2"), end=True)]),
    row("an answer to HEAD between others", head(1) + head(3, [(b":method", b"HEAD"), *GET[1:]]) + head(5),
        answers(1), answers(3), answers(5),
        events=[request(), request(3, "HEAD"), request(5)],
        sent=[answered(1, 200), Data(1, b"ok", True), answered(3, 200, end=True), answered(5, 200),
        Data(5, b"ok", True)]),
    row("204 names no length", ASK, answers(1, 204, [(b"content-length", b"0"), TEXT]), events=ASKED,
        sent=[answered(1, 204, TEXT, end=True)]),
    row("names in capitals", ASK, answers(1, 200, [(b"Content-Type", b"text/plain")]), events=ASKED,
        sent=[answered(1, 200, TEXT), Data(1, b"ok", True)], why="section 8.2: in lower case on the wire"),
    row("blanks around a value", ASK, answers(1, 200, [(b"x", b" y\t")]), events=ASKED,
        sent=[answered(1, 200, ONE), Data(1, b"ok", True)]),
    row("fields of a connection are left out", ASK,
        answers(1, 200, [(b"connection", b"close"), (b"Keep-Alive", b"5"), (b"transfer-encoding", b"chunked"),
                         (b"upgrade", b"h2c"), (b"proxy-connection", b"x"), ONE]),
        events=ASKED, sent=[answered(1, 200, ONE), Data(1, b"ok", True)], why="section 8.2.2"),
    row("the same field twice", ASK, answers(1, 200, [(b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]), events=ASKED,
        sent=[answered(1, 200, (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")), Data(1, b"ok", True)]),
    row("the same answer to two requests",
        head(1) + head(3), answers(1, 200, [TEXT, ONE]), answers(3, 200, [TEXT, ONE]),
        events=[request(), request(3)],
        sent=[answered(1, 200, TEXT, ONE), Data(1, b"ok", True), answered(3, 200, TEXT, ONE), Data(3, b"ok", True)]),
    row("a head larger than a frame", ASK, answers(1, 200, [(b"x", b"v" * 40_000)]), events=ASKED,
        sent=[answered(1, 200, (b"x", b"v" * 40_000)), Data(1, b"ok", True)]),
    row("answers in another order than their requests", head(1) + head(3) + head(5), answers(5), answers(1), answers(3),
        events=[request(), request(3), request(5)],
        sent=[answered(5, 200), Data(5, b"ok", True), answered(1, 200), Data(1, b"ok", True), answered(3, 200),
              Data(3, b"ok", True)]),
]  # fmt: skip

HINT = (b"link", b"</a>")
INTERIM = [
    row("early hints", ASK, hints(1), answers(1), events=ASKED,
        sent=[answered(1, 103, HINT), answered(1, 200), Data(1, b"ok", True)]),
    row("interim answers, several", ASK, hints(1), hints(1, 102), hints(1), answers(1), events=ASKED,
        sent=[answered(1, 103, HINT), answered(1, 102, HINT), answered(1, 103, HINT), answered(1, 200),
              Data(1, b"ok", True)]),
    row("100 before a body", head(1, [*POST, (b"expect", b"100-continue")], False),
        lambda codec: codec.send_informational(1, 100, []), data(1, b"x", True), answers(1),
        events=[post(headers=[*HOST_A, (b"expect", b"100-continue")], expect_continue=True), Body(1, b"x"), End(1, [])],
        sent=[answered(1, 100), answered(1, 200), Data(1, b"ok", True)]),
    row("hints to HEAD", of(b"HEAD"), hints(1), answers(1), events=[request(method="HEAD")],
        sent=[answered(1, 103, HINT), answered(1, 200, end=True)]),
]  # fmt: skip


def ended(stream_id: int) -> Head:
    return Head(stream_id, (ONE,), True)


ENDS = [
    row("trailers of an answer", ASK, sends_head(1), sends_body(1, b"ok", False), trailers(1, [ONE]), events=ASKED,
        sent=[answered(1, 200), Data(1, b"ok"), ended(1)]),
    row("trailers without content", ASK, sends_head(1), trailers(1, [ONE]), events=ASKED,
        sent=[answered(1, 200), ended(1)]),
    row("no trailers after all", ASK, sends_head(1), sends_body(1, b"ok", False), trailers(1, []), events=ASKED,
        sent=[answered(1, 200), Data(1, b"ok", True)]),
    row("trailers in capitals", ASK, sends_head(1), sends_body(1, b"ok", False), trailers(1, [(b"X", b" y ")]),
        events=ASKED, sent=[answered(1, 200), Data(1, b"ok"), ended(1)]),
    row("trailers behind content that waits", ASK + settings({INITIAL_WINDOW: 1}),
        sends_head(1), sends_body(1, b"ok", False), trailers(1, [ONE]), window(1, 1), events=ASKED,
        sent=[SettingsAck(), answered(1, 200), Data(1, b"ok"), ended(1)]),
    row("an answer before the body is whole", OPEN + data(1, b"ab"), answers(1), data(1, b"c", True),
        events=[post(), Body(1, b"ab")], sent=[answered(1, 200), Data(1, b"ok", True), Rst(1, NO_ERROR)],
        why="section 8.1: RST_STREAM(NO_ERROR) asks the client to stop"),
    row("an answer without content before the body is whole", OPEN, answers(1, 204), data(1, b"c", True),
        events=[post()], sent=[answered(1, 204, end=True), Rst(1, NO_ERROR)]),
    row("an answer with trailers before the body is whole",
        OPEN, sends_head(1), trailers(1, [ONE]), data(1, b"c", True),
        events=[post()], sent=[answered(1, 200), ended(1), Rst(1, NO_ERROR)]),
    row("an answer while the body comes",
        OPEN + data(1, b"a"), sends_head(1), data(1, b"b"), sends_body(1, b"x", False),
        data(1, b"c", True), sends_body(1, b"y"),
        events=[post(), Body(1, b"abc"), End(1, [])], sent=[answered(1, 200), Data(1, b"xy", True)]),
    row("an early answer that waits for its window is not reset before it is out",
        settings({INITIAL_WINDOW: 1}) + OPEN, answers(1), data(1, b"abc", True), window(1, 1),
        events=[post(), Body(1, b"abc"), End(1, [])],
        sent=[SettingsAck(), answered(1, 200), Data(1, b"ok", True)]),
]  # fmt: skip


def held(stream_id: int, size: int, blocked: bool) -> Step:
    def check(codec: Http2Codec) -> None:
        assert (codec.held(stream_id), codec.blocked(stream_id)) == (size, blocked)
        assert codec.holds or not size

    return check


def sent(stream_id: int, size: int) -> Step:
    def check(codec: Http2Codec) -> None:
        assert codec.sent_on(stream_id) == size

    return check


LARGE = b"0123456789abcdef" * 8192  # 128 KiB, twice as large as the windows are at first
REST = len(LARGE) - WINDOW
NO_WINDOW = settings({INITIAL_WINDOW: 0})

WINDOWS = [
    row("an answer larger than its window", ASK, answers(1, content=LARGE), held(1, REST, True), sent(1, len(LARGE)),
        events=ASKED, sent=[answered(1, 200), Data(1, LARGE[:WINDOW])]),
    row("more of the stream's window alone is of no use", ASK, answers(1, content=LARGE), window(1, REST),
        held(1, REST, True), events=ASKED, sent=[answered(1, 200), Data(1, LARGE[:WINDOW])]),
    row("more of the connection's window alone is of no use", ASK, answers(1, content=LARGE), window(0, REST),
        held(1, REST, True), events=ASKED, sent=[answered(1, 200), Data(1, LARGE[:WINDOW])]),
    row("more of both windows", ASK, answers(1, content=LARGE), window(0, REST), window(1, REST), held(1, 0, False),
        sent(1, len(LARGE)), events=ASKED, sent=[answered(1, 200), Data(1, LARGE, True)]),
    row("more of both windows, a bit at a time", ASK, answers(1, content=LARGE),
        *[step for size in (5000, 10_000, REST - 15_000) for step in (window(1, size), window(0, size))],
        events=ASKED, sent=[answered(1, 200), Data(1, LARGE, True)]),
    row("large windows from the beginning", settings({INITIAL_WINDOW: MOST}) + window(0, MOST - WINDOW) + ASK,
        answers(1, content=LARGE), held(1, 0, False),
        events=ASKED, sent=[SettingsAck(), answered(1, 200), Data(1, LARGE, True)]),
    row("no window at all", NO_WINDOW + ASK, answers(1), held(1, 2, True), sent(1, 2), events=ASKED,
        sent=[SettingsAck(), answered(1, 200)]),
    row("no window, and no content", NO_WINDOW + ASK, answers(1, content=b""), held(1, 0, False), events=ASKED,
        sent=[SettingsAck(), answered(1, 200, end=True)], why="section 6.9.1: an empty frame needs no window"),
    row("no window, then one", NO_WINDOW + ASK, answers(1), window(1, 2), held(1, 0, False), events=ASKED,
        sent=[SettingsAck(), answered(1, 200), Data(1, b"ok", True)]),
    row("no window, then a larger setting", NO_WINDOW + ASK, answers(1), settings({INITIAL_WINDOW: 2}), events=ASKED,
        sent=[SettingsAck(), answered(1, 200), SettingsAck(), Data(1, b"ok", True)], why="section 6.9.2"),
    row("a window that a setting makes negative", ASK, answers(1, content=LARGE), settings({INITIAL_WINDOW: 0}),
        window(0, MOST - WINDOW), window(1, WINDOW), held(1, REST, True), window(1, REST), held(1, 0, False),
        events=ASKED, sent=[answered(1, 200), Data(1, LARGE[:WINDOW]), SettingsAck(), Data(1, LARGE[WINDOW:], True)],
        why="section 6.9.2: it has to be positive again before anything is sent"),
    row("a setting does not change the connection's window", settings({INITIAL_WINDOW: MOST}) + ASK,
        answers(1, content=LARGE), held(1, REST, True), events=ASKED,
        sent=[SettingsAck(), answered(1, 200), Data(1, LARGE[:WINDOW])]),
    row("a smaller setting holds for streams to come", settings({INITIAL_WINDOW: 5}) + ASK,
        answers(1, content=b"12345678"),
        held(1, 3, True), window(1, 3),
        events=ASKED, sent=[SettingsAck(), answered(1, 200), Data(1, b"12345678", True)]),
    row("one stream's window does not hold up another's", head(1) + settings({INITIAL_WINDOW: 0}) + head(3),
        answers(1), answers(3, content=b""), head(5), answers(5, 204),
        events=[request(), request(3), request(5)],
        sent=[SettingsAck(), answered(1, 200), answered(3, 200, end=True), answered(5, 204, end=True)]),
    row("heads need no window", head(1) + head(3), answers(1, content=LARGE), answers(3), held(3, 2, True),
        events=[request(), request(3)], sent=[answered(1, 200), Data(1, LARGE[:WINDOW]), answered(3, 200)]),
    row("a reset lets go of what is held", ASK, answers(1, content=LARGE), rst(1), held(1, 0, False), window(0, 100),
        events=[*ASKED, Reset(1, "", 8)], sent=[answered(1, 200), Data(1, LARGE[:WINDOW])]),
    row("a reset of ours lets go of what is held", ASK, answers(1, content=LARGE), lambda codec: codec.reset(1, 8),
        held(1, 0, False), window(0, 100) + window(1, 100),
        events=ASKED, sent=[answered(1, 200), Data(1, LARGE[:WINDOW]), Rst(1, 8)]),
    reset("a stream's window that overflows", FLOW_CONTROL_ERROR, ASK + window(1, MOST), events=ASKED),
    reset("a stream's window that overflows by one", FLOW_CONTROL_ERROR, ASK + window(1, MOST - WINDOW) + window(1, 1),
          events=ASKED),
    row("a stream's window at its largest", ASK + window(1, MOST - WINDOW), events=ASKED),
    broken("the connection's window that overflows", FLOW_CONTROL_ERROR, window(0, MOST)),
    broken("the connection's window that overflows by one", FLOW_CONTROL_ERROR,
           window(0, MOST - WINDOW) + window(0, 1)),
    row("the connection's window at its largest", window(0, MOST - WINDOW)),
    broken("a setting that makes a stream's window overflow", FLOW_CONTROL_ERROR,
           ASK + window(1, 1) + settings({INITIAL_WINDOW: MOST}), events=ASKED, last=1, why="section 6.9.2"),
    broken("a setting that makes a window overflow, and the next that would not", FLOW_CONTROL_ERROR,
           ASK + window(1, 1) + settings([(INITIAL_WINDOW, MOST), (INITIAL_WINDOW, 5)]), events=ASKED, last=1),
    row("WINDOW_UPDATE of 1 on the connection", window(0, 1) * 20),
]  # fmt: skip


def tight(size: int) -> Http2Options:
    return Http2Options(initial_window=size)


INCOMING = [
    row("a body of the whole window", OPEN + data(1, b"x" * FULL) * 4, events=[post(), Body(1, b"x" * FULL * 4)],
        options=tight(4 * FULL)),
    reset("a body of one byte more than the window", FLOW_CONTROL_ERROR,
          OPEN + data(1, b"x" * FULL) * 4 + data(1, b"x"), events=[post(), Body(1, b"x" * FULL * 4)],
          options=tight(4 * FULL),
          why="section 6.9.1 lets it be an error of either kind; the others have done nothing"),
    row("a body of a small window", OPEN + data(1, b"x" * 100),
        events=[post(), Body(1, b"x" * 100)], options=tight(100)),
    reset("a body over a small window", FLOW_CONTROL_ERROR, OPEN + data(1, b"x" * 101), events=[post()],
          options=tight(100)),
    reset("padding is of the window", FLOW_CONTROL_ERROR, OPEN + data(1, b"x" * 50, False, 50), events=[post()],
          options=tight(100)),
    reset("an empty frame needs no window, and one byte does", FLOW_CONTROL_ERROR,
          OPEN + data(1, b"x" * 100) + data(1) + data(1, b"x"), events=[post(), Body(1, b"x" * 100)],
          options=tight(100)),
    row("a small window does not bind before it was acknowledged", PREFACE + OPEN + data(1, b"x" * 101, True),
        events=[post(), Body(1, b"x" * 101), End(1, [])], sent=[SettingsAck()],
        options=tight(100), behind=False, why="section 6.5.3: the client may not have heard of it yet"),
    reset("a small window binds streams that were open when it was acknowledged", FLOW_CONTROL_ERROR,
          PREFACE + OPEN + data(1, b"x" * 60), settings(flags=ACK) + data(1, b"x" * 40) + data(1, b"x"),
          events=[post(), Body(1, b"x" * 100)], sent=[SettingsAck()], options=tight(100), behind=False,
          why="section 6.9.2: what it had used of the old one counts"),
    reset("a small window binds once it was acknowledged", FLOW_CONTROL_ERROR,
          OPEN + data(1, b"x" * 100), data(1, b"x"), events=[post(), Body(1, b"x" * 100)], options=tight(100)),
]  # fmt: skip


def asked(stream_id: int, priority: bytes | None = None) -> bytes:
    return head(stream_id, GET if priority is None else [*GET, (b"priority", priority)])


PIECE = b"p" * FULL


def order(name: str, wires: list[bytes], expected: str, why: str = "", between: Step | None = None) -> Row:
    """Answers of two full frames each to streams 1, 3, 5...; ``expected`` is the order of their numbers.

    The connection's window lets them all out at once, when their heads are out already.
    """
    count = len(wires)
    numbers = range(1, 2 * count, 2)
    steps: list[Step] = [settings({INITIAL_WINDOW: MOST}) + window(0, MOST - WINDOW), *wires]
    steps += [sends_head(number) for number in numbers]
    if between is not None:
        steps.append(between)

    def check(codec: Http2Codec) -> None:
        for number in numbers:
            codec.send_body(number, PIECE * 2, True)
        wire, at, seen = codec.take(), 0, ""
        while at < len(wire):
            seen += f"{int.from_bytes(wire[at + 5 : at + 9])} " if wire[at + 3] == 0 else ""
            at += 9 + int.from_bytes(wire[at : at + 3])
        assert seen.split() == expected.split()

    return Row(name, (*steps, check), (), (), why=why)


ORDERS = [
    order("streams without a priority take turns", [asked(1), asked(3), asked(5)], "1 3 5 1 3 5",
          why="RFC 9218's default is one after the other; a client without priorities would wait for its largest"),
    order("streams that are incremental take turns", [asked(1, b"i"), asked(3, b"i"), asked(5, b"u=3, i")],
          "1 3 5 1 3 5"),
    order("streams that are not incremental come one after the other", [asked(1, b"u=3"), asked(3, b"u=3")], "1 1 3 3"),
    order("the more urgent stream is first", [asked(1, b"u=4"), asked(3, b"u=1"), asked(5, b"u=2")], "3 3 5 5 1 1"),
    order("urgency before rotation", [asked(1, b"u=5, i"), asked(3, b"u=0, i"), asked(5, b"u=0, i")], "3 5 3 5 1 1"),
    order("a priority that is none is the default of RFC 9218", [asked(1, b"u=9"), asked(3, b"u=x")], "1 1 3 3"),
    order("PRIORITY_UPDATE before the request", [priority_update(3, b"u=0") + asked(1), asked(3)], "3 3 1 1"),
    order("PRIORITY_UPDATE behind the request", [asked(1), asked(3) + priority_update(3, b"u=0")], "3 3 1 1"),
    order("PRIORITY_UPDATE overrides the field", [priority_update(1, b"u=7") + asked(1, b"u=0"), asked(3, b"u=6")],
          "3 3 1 1"),
    order("the last PRIORITY_UPDATE counts", [asked(1, b"u=3"), asked(3) + priority_update(3, b"u=0")
          + priority_update(3, b"u=7")], "1 1 3 3"),
]  # fmt: skip

ROWS = [*HEADS, *INTERIM, *ENDS, *WINDOWS, *INCOMING]
