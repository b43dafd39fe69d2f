"""The table of requests: fields, Host, and the fields that manage the connection (RFC 9112 sections 3.2, 5, 9)."""

from __future__ import annotations

from asgiri.codec.events import Body, End
from tests.codec.rows import (
    GET,
    HOST_A,
    POST,
    A,
    content,
    head,
    post,
    refused,
    request,
    row,
    text,
)

TCHARS = b"!#$%&'*+-.^_`|~09aZ"

# RFC 9112 section 5: what is let through of fields. (name, field lines, headers)
FIELDS = [
    row(name, head(GET, *lines), request(headers=headers))
    for name, lines, headers in [
        (
            "names in lower case, order and repetition kept",
            [b"X-B: 1", b"HOST: a", b"x-a: 2", b"X-b: 3"],
            [(b"x-b", b"1"), (b"host", b"a"), (b"x-a", b"2"), (b"x-b", b"3")],
        ),
        (
            "values: obs-text, empty, blanks and colons inside",
            [A, b"X: caf\xc3\xa9 \xff\x80", b"Y:", b"Z: ", b"T:\t a:\tb  c \t"],
            [*HOST_A, (b"x", b"caf\xc3\xa9 \xff\x80"), (b"y", b""), (b"z", b""), (b"t", b"a:\tb  c")],
        ),
        (
            "values: beyond what other libraries call blank",
            [A, b"X: \x85 a \xa0", b"Y:\xe2\x80\xa8"],
            [*HOST_A, (b"x", b"\x85 a \xa0"), (b"y", b"\xe2\x80\xa8")],
        ),
        ("blanks around a value", [b"Host: \t a\t \t", b"X:\t\t"], [*HOST_A, (b"x", b"")]),
        ("no blank behind the colon", [b"Host:a", b"X:1"], [*HOST_A, (b"x", b"1")]),
        ("every kind of tchar in a name", [A, TCHARS + b": 1"], [*HOST_A, (TCHARS.lower(), b"1")]),
        ("a long name and a long value", [A, b"n" * 300 + b": " + b"v" * 300], [*HOST_A, (b"n" * 300, b"v" * 300)]),
        *[
            (f"no framing in {text(line)}", [A, line], [*HOST_A, (name, value)])
            for line, name, value in [
                (b"Transfer_Encoding: chunked", b"transfer_encoding", b"chunked"),
                (b"Content_Length: 5", b"content_length", b"5"),
                (b"X-Transfer-Encoding: chunked", b"x-transfer-encoding", b"chunked"),
                (b"Transfer-Encodin: chunked", b"transfer-encodin", b"chunked"),
                (b"Transfer-Encoding-: chunked", b"transfer-encoding-", b"chunked"),
                (b"X: Transfer-Encoding: chunked", b"x", b"Transfer-Encoding: chunked"),
                (b"X: Content-Length: 5", b"x", b"Content-Length: 5"),
                (b"Content-Length-: 5", b"content-length-", b"5"),
                (b"TE: chunked", b"te", b"chunked"),
                (b"Trailer: Content-Length", b"trailer", b"Content-Length"),
            ]
        ],
        *[
            (f"Host: {text(host)}", [b"Host: " + host], [(b"host", host)])
            for host in (
                *(b"", b"a:80", b"a:", b"A.b-c_d.", b"127.0.0.1:1", b"[::1]", b"[fe80::1]:80"),
                *(b"%C3%A9", b"a~!$&'()*+,;=", b"h" * 300),
            )
        ],
    ]
]

# RFC 9110 sections 7.6.1, 7.8 and 10.1.1: the fields that manage the connection.
CONNECTIONS = [
    *[
        row(
            f"Connection: {text(b' + '.join(options))}",
            head(GET, A, *[b"Connection: " + option for option in options]),
            request(headers=[*HOST_A, *[(b"connection", option) for option in options]]),
            last=last,
        )
        for options, last in [
            ([b"close"], True),
            ([b"Close"], True),
            ([b"keep-alive, close"], True),
            ([b"close,\tte"], True),
            ([b"te", b"CLOSE"], True),
            ([b",close,"], True),
            ([b"keep-alive"], False),
            ([b"keep-alive", b"keep-alive"], False),
            ([b"closed"], False),
            ([b"close;x"], False),
            ([b'"close"'], False),
            ([b""], False),
        ]
    ],
    row(
        "Proxy-Connection is none of ours",
        head(GET, A, b"Proxy-Connection: close"),
        request(headers=[*HOST_A, (b"proxy-connection", b"close")]),
    ),
    row(
        "HTTP/1.0 is not kept alive",
        head(b"GET / HTTP/1.0", b"Connection: keep-alive"),
        request(headers=[(b"connection", b"keep-alive")], http_version="1.0"),
        last=True,
    ),
    row(
        "close and a body",
        head(POST, A, b"Connection: close", b"Content-Length: 2") + b"ab",
        post([*HOST_A, (b"connection", b"close"), (b"content-length", b"2")]),
        Body(1, b"ab"),
        End(1, []),
        last=True,
    ),
    *[
        row(
            f"an upgrade that is left alone: {text(line)} {text(b' + '.join(fields))}",
            head(line, A, *fields) + body,
            request(
                line.split()[0].decode(),
                headers=[*HOST_A, *[(name.lower(), value) for name, _, value in (f.partition(b": ") for f in fields)]],
                end_stream=not body,
                protocol=protocol,
            ),
            *content(b"abc" if body else b""),
            *[End(1, []) for _ in body[:1]],
        )
        for line, fields, body, protocol in [
            (GET, [b"Connection: upgrade", b"Upgrade: websocket"], b"", b"websocket"),
            (
                GET,
                [b"Connection: keep-alive, UPGRADE", b"Upgrade: WebSocket/1, H2C", b"Upgrade: x"],
                b"",
                b"websocket/1, h2c, x",
            ),
            (GET, [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"], b"", b"h2c"),
            (GET, [b"Connection: upgrade"], b"", b""),
            (GET, [b"Upgrade: websocket"], b"", b""),
            (GET, [b"Connection: upgrade", b"Upgrade: "], b"", b""),
            (POST, [b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 3"], b"abc", b"x"),
            (GET, [b"Content-Length: 3", b"Upgrade: x", b"Connection: upgrade"], b"abc", b"x"),
            (
                POST,
                [b"Connection: upgrade", b"Upgrade: x", b"Transfer-Encoding: chunked"],
                b"3\r\nabc\r\n0\r\n\r\n",
                b"x",
            ),
            (b"FOO / HTTP/1.2", [b"Connection: upgrade", b"Upgrade: x"], b"", b"x"),
            (b"FOO / HTTP/1.1", [b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 3"], b"abc", b"x"),
        ]
    ],
    row(
        "no upgrade from HTTP/1.0",
        head(b"POST / HTTP/1.0", b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 1") + b"a",
        post([(b"connection", b"upgrade"), (b"upgrade", b"x"), (b"content-length", b"1")], http_version="1.0"),
        Body(1, b"a"),
        End(1, []),
        last=True,
    ),
    row(
        "Expect: 100-continue",
        head(POST, A, b"Expect: 100-Continue", b"Content-Length: 2") + b"ab",
        post([*HOST_A, (b"expect", b"100-Continue"), (b"content-length", b"2")], expect_continue=True),
        Body(1, b"ab"),
        End(1, []),
    ),
    row(
        "Expect: 100-continue without a body",
        head(GET, A, b"Expect: 100-continue"),
        request(headers=[*HOST_A, (b"expect", b"100-continue")]),
    ),
    row(
        "another expectation",
        head(POST, A, b"Expect: 200-ok", b"Content-Length: 1") + b"a",
        post([*HOST_A, (b"expect", b"200-ok"), (b"content-length", b"1")]),
        Body(1, b"a"),
        End(1, []),
    ),
    row(
        "HTTP/1.0 waits for no 100 (RFC 9110 section 10.1.1)",
        head(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1") + b"a",
        post([(b"expect", b"100-continue"), (b"content-length", b"1")], http_version="1.0"),
        Body(1, b"a"),
        End(1, []),
        last=True,
    ),
]

BAD_FIELDS = [
    *[
        refused(f"{text(char)} in {where}", 400, head(GET, A, field))
        for char in [bytes([code]) for code in (*range(9), *range(10, 32), 127)]
        for where, field in [("a value", b"X: a" + char + b"b"), ("a name", b"X" + char + b"Y: 1")]
    ],
    *[
        refused(f"{text(char)} at the {where}", 400, head(GET, A, field))
        for char in (b"\x00", b"\x0b", b"\x0c", b"\r", b"\n")
        for where, field in [
            ("beginning of a value", b"X:" + char + b"a"),
            ("end of a value", b"X: a" + char),
            ("end of a name", b"X" + char + b": 1"),
            ("beginning of a name", char + b"X: 1"),
        ]
    ],
    *[
        refused(f"a name with {text(bytes([char]))}", 400, head(GET, A, b"X" + bytes([char]) + b"Y: 1"))
        for char in b' \t"(),/;<=>?@[\\]{}\x80\xa0\xff'
    ],
    *[
        refused(f"the field line {text(line)}", 400, head(GET, A, line))
        for line in (
            b"X",
            b"X 1",
            b": 1",
            b":",
            b" : 1",
            b"X : 1",
            b"X\t: 1",
            b"X \t : 1",
            b" ",
            b"\t",
            b"\xc3\xa9: 1",
            b"X\xa0: 1",
        )
    ],
    refused("a request line for a field", 400, head(GET, A, b"GET / HTTP/1.1")),
    refused("a blank before the first field", 400, head(GET, b" X: 1", A)),
    refused("a tab before the first field", 400, head(GET, b"\tX: 1", A)),
    refused("a blank line before the first field", 400, head(GET, b" ", A)),
    *[
        refused(f"a folded field (section 5.2): {text(b' + '.join(lines))}", 400, head(GET, *lines))
        for lines in (
            [A, b"X: 1", b" 2"],
            [A, b"X: 1", b"\t2"],
            [A, b"X:", b" 1"],
            [A, b"X: 1", b" ", b"Y: 1"],
            [A, b"X: 1", b" Y: 1"],
            [b"Host:", b" a"],
            [b"Host: a", b" b"],
        )
    ],
    refused("a line that ends with LF alone", 400, b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"),
    refused("a line that ends with CR alone", 400, b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n"),
    refused("a line that ends with LF CR", 400, b"GET / HTTP/1.1\r\nHost: a\n\rX: 1\r\n\r\n"),
    refused("a line that ends with CR CR LF", 400, b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    refused("a head that ends with LF alone", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("a head that ends with CR alone", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    refused("a head that ends with two LF", 400, b"GET / HTTP/1.1\r\nHost: a\n\n"),
    refused("LF alone everywhere", 400, b"GET / HTTP/1.1\nHost: a\n\n"),
]

# RFC 9112 section 3.2 and RFC 9110 section 7.2
BAD_HOSTS = [
    refused("no Host", 400, head(GET)),
    refused("no Host in HTTP/1.2", 400, head(b"GET / HTTP/1.2")),
    refused("no Host, and an absolute form", 400, head(b"GET http://a/ HTTP/1.1")),
    refused("no Host for an asterisk", 400, head(b"OPTIONS * HTTP/1.1")),
    refused("two Hosts", 400, head(GET, A, A)),
    refused("two Hosts in different cases", 400, head(GET, A, b"HOST: b")),
    refused("two Hosts, one of them empty", 400, head(GET, b"Host:", A)),
    refused("two Hosts far apart", 400, head(GET, A, b"X: 1", b"Y: 2", A)),
    refused("two Hosts in HTTP/1.0", 400, head(b"GET / HTTP/1.0", A, b"Host: b")),
    refused("two Hosts with an absolute form", 400, head(b"GET http://a/ HTTP/1.1", A, b"Host: b")),
    refused("a malformed Host with an absolute form", 400, head(b"GET http://a/ HTTP/1.1", b"Host: a/b")),
    refused("a malformed Host in HTTP/1.0", 400, head(b"GET / HTTP/1.0", b"Host: a/b")),
    *[
        refused(f"Host: {text(host)}", 400, head(GET, b"Host: " + host))
        for host in (
            *(b"u@a", b"u:p@a", b"a/b", b"a/", b"/a", b"http://a", b"a b", b"a\tb", b"a, b", b"a:b", b"a:1:2", b"a:-1"),
            *(
                b"a: 1",
                b"a:1x",
                b"::1",
                b"[::1",
                b"::1]",
                b"[::1]a",
                b"[::1]:x",
                b"[]",
                b"[a/b]",
                b"a?b",
                b"a#b",
                b"a\\b",
            ),
            *(
                b"<a>",
                b'"a"',
                b"a|b",
                b"{a}",
                b"a^b",
                b"a`",
                b"\xc3\xa9",
                b"a\x80",
                b"h" * 300 + b"@a",
                b"h" * 300 + b"/",
            ),
        )
    ],
]

ACCEPTED = [*FIELDS, *CONNECTIONS]
REFUSED = [*BAD_FIELDS, *BAD_HOSTS]
