"""The table of requests: request lines and targets (RFC 9112 section 3)."""

from __future__ import annotations

from tests.codec.rows import (
    GET,
    GOOD,
    POST,
    A,
    head,
    refused,
    request,
    row,
    text,
)

TCHARS = b"!#$%&'*+-.^_`|~09aZ"

GOOD_REQUEST = request(target=b"/good", headers=[(b"host", b"good")])

LINES = [
    row("GET", head(GET, A), request()),
    row("HEAD", head(b"HEAD /x HTTP/1.1", A), request("HEAD", b"/x")),
    row("DELETE without a body", head(b"DELETE /x HTTP/1.1", A), request("DELETE", b"/x")),
    row("POST without a body", head(POST, A), request("POST")),
    *[
        row(f"the method {text(method)}", head(method + b" / HTTP/1.1", A), request(method.decode()))
        for method in (
            b"PROPFIND",
            b"M-SEARCH",
            b"VERSION-CONTROL",
            b"FOO",
            b"get",
            b"SOURCE",
            b"PRI",
            b"X" * 30,
            TCHARS,
        )
    ],
    row("HTTP/1.2 is spoken as 1.1", head(b"GET / HTTP/1.2", A), request()),
    row("HTTP/1.9 is spoken as 1.1", head(b"GET / HTTP/1.9", A), request()),
    row("HTTP/1.0", head(b"GET / HTTP/1.0"), request(headers=[], http_version="1.0"), last=True),
    row("HTTP/1.0 with a Host", head(b"GET / HTTP/1.0", A), request(http_version="1.0"), last=True),
    *[
        row(f"empty lines before the request (section 2.2): {text(lines)}", lines + GOOD, GOOD_REQUEST)
        for lines in (b"\r\n", b"\n", b"\r\n\r\n\n", b"\r")
    ],
    row("empty lines without end and then a request", b"\r\n" * 300 + GOOD, GOOD_REQUEST),
]

TARGETS = [
    *[
        row(f"the target {text(target)}", head(b"GET " + target + b" HTTP/1.1", A), request(target=target))
        for target in (
            b"/p/q?a=1&b=%20?",
            b"/p?",
            b"/?/?",
            b"/a%2Fb;x%zz",
            b"/a%2Fb;x?y#z",  # a "#" is data, for a target has no fragment
            b"/#",
            b"/\xc3\xa9?\xff",
            b"/\x80\x85\xa0",
            b"//b/c",
            b"/http://b/",
            b"/.././/%2e%2e/%00",
            b'/"<>\\^`{|}',
            b"/~-._!$&'()*+,;=:@[]",
            b"/*",
        )
    ],
    row(
        "absolute form: its authority replaces Host (RFC 9112 section 3.2.2)",
        head(b"GET http://b:81/p?q HTTP/1.1", b"X: 1", A),
        request(target=b"http://b:81/p?q", path=b"/p", query=b"q", headers=[(b"host", b"b:81"), (b"x", b"1")]),
    ),
    *[
        row(
            f"absolute form: {text(target)}",
            head(b"GET " + target + b" HTTP/1.1", A),
            request(target=target, path=path, query=query, headers=[(b"host", authority)]),
        )
        for target, path, query, authority in (
            (b"HTTPS://b", b"/", b"", b"b"),
            (b"http://b?q", b"/", b"q", b"b"),
            (b"http://b:/", b"/", b"", b"b:"),
            (b"http://[::1]:80//p", b"//p", b"", b"[::1]:80"),
            (b"http://b/@?#", b"/@", b"#", b"b"),
            (b"http://B/\xc3\xa9", b"/\xc3\xa9", b"", b"B"),
        )
    ],
    row(
        "absolute form in HTTP/1.0, without Host",
        head(b"GET http://b/ HTTP/1.0"),
        request(target=b"http://b/", path=b"/", headers=[(b"host", b"b")], http_version="1.0"),
        last=True,
    ),
    row("asterisk form", head(b"OPTIONS * HTTP/1.1", A), request("OPTIONS", b"*")),
    row("OPTIONS for a path", head(b"OPTIONS /* HTTP/1.1", A), request("OPTIONS", b"/*")),
]

BAD_LINES = [
    *[
        refused(f"the request line {text(line)}", 400, head(line, A))
        for line in (
            *(b"GET /", b"GET", b"GET ", b" ", b"/", b" / HTTP/1.1", b"GET HTTP/1.1", b"GET  HTTP/1.1"),
            *(b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1\t", b" GET / HTTP/1.1"),
            *(b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1", b"\tGET / HTTP/1.1", b"GET / HTTP/1.1 x", b"GET /a b HTTP/1.1"),
            *(b"GET\xa0/ HTTP/1.1", b"GET\x85/ HTTP/1.1", b"GET / HTTP/1.1\xa0", b"GET/ HTTP/1.1", b"GET /HTTP/1.1"),
            *(
                b"GET / HTTP/1",
                b"GET / HTTP/1.",
                b"GET / HTTP/.1",
                b"GET / HTTP/11",
                b"GET / HTTP/1.10",
                b"GET / HTTP/01.1",
            ),
            *(b"GET / HTTP/1.1.1", b"GET / HTTP/1,1", b"GET / HTTP/a.b", b"GET / HTTP/-1.1", b"GET / HTTP/+1.1"),
            *(b"GET / HTTP/ 1.1", b"GET / HTTP /1.1", b"GET / http/1.1", b"GET / Http/1.1", b"GET / HTTPS/1.1"),
            *(b"GET / ICE/1.0", b"GET / XHTTP/1.1", b"GET / HTTP/1.1HTTP/1.1", b"GET / HTTP/\xd9\xa1.1", b"GET / /1.1"),
            *(b"G@T / HTTP/1.1", b"GET: / HTTP/1.1", b"G(T / HTTP/1.1", b"G/T / HTTP/1.1", b'"GET" / HTTP/1.1'),
            *(b"G\xc3\x89T / HTTP/1.1", b"\xef\xbb\xbfGET / HTTP/1.1", b"HTTP/1.1 200 OK", b"{}", b"Host: b"),
            *(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2", b"SSH-2.0-OpenSSH_9.9", b"EHLO a", b"*1"),
        )
    ],
    *[
        refused(f"{text(char)} in {where}", 400, head(line, A))
        for char in (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\r", b"\n", b"\x1b", b"\x1f", b"\x7f")
        for where, line in [
            ("the method", b"G" + char + b"T / HTTP/1.1"),
            ("the target", b"GET /a" + char + b"b HTTP/1.1"),
            ("the version", b"GET / HTTP/1." + char + b"1"),
            ("the line's end", GET + char),
        ]
    ],
    *[
        refused(f"version {text(version)}", 505, head(b"GET / HTTP/" + version, A))
        for version in (b"0.0", b"0.9", b"2.0", b"2.1", b"3.0", b"9.9")
    ],
    refused("HTTP/0.9 without a version", 400, b"GET /\r\n"),
    refused("a request line that ends with LF alone", 400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("a request line that ends with CR alone", 400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    refused("the preface of HTTP/2 (RFC 9113 section 3.4)", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("the preface behind an empty line", 505, b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("a TLS ClientHello", 400, bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n"),
    refused("a TLS ClientHello without a line", 400, bytes.fromhex("1603010200010001fc0303")),
    refused("an SSLv2 ClientHello", 400, bytes.fromhex("802e0100020015")),
    refused("the PROXY protocol, version 2", 400, b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"),
    refused("nothing but noise", 400, b"\x00\x01\x02\x03"),
]

BAD_TARGETS = [
    *[
        refused(f"{method} for {text(target)}", 400, head(method.encode() + b" " + target + b" HTTP/1.1", A))
        for method, target in [
            *[
                ("GET", target)
                for target in (b"*", b"index.html", b"a:80", b"a", b"?a", b"#", b"\\", b"\xc3\xa9", b"%2f")
            ],
            *[("GET", target) for target in (b"http:", b"http:/a", b"http:a", b"http://", b"http:///a", b"http://?a")],
            *[
                ("GET", target)
                for target in (b"http://#a", b"http://a#b", b"http://@a/", b"http://u:p@a/", b"https:///")
            ],
            *[("GET", target) for target in (b"http://a:b/", b"http://[::1/", b'http://a"b/', b"http://\xc3\xa9/")],
            *[
                ("GET", target)
                for target in (b"ws://a/", b"ftp://a/", b"://a/", b"http//a", b"http://a:1:2/", b"http://a\\b/")
            ],
            *[("OPTIONS", target) for target in (b"**", b"*?a", b"a:80")],
            *[("HEAD", b"*"), ("PRI", b"*"), ("options", b"*")],
        ]
    ],
    *[
        refused(f"CONNECT {text(target)}", 501, head(b"CONNECT " + target, *fields) + body)
        for target, fields, body in [
            (b"a:443 HTTP/1.1", [b"Host: a:443"], b""),
            (b"a:443 HTTP/1.0", [], b""),
            (b"/ HTTP/1.1", [A], b""),
            (b"* HTTP/1.1", [A], b""),
            (b"a:443 HTTP/1.1", [A, b"Content-Length: 1"], b"a"),
            (b"a:443 HTTP/1.1", [A, b"Connection: upgrade", b"Upgrade: x"], b"\x16\x03"),
        ]
    ],
]

ACCEPTED = [*LINES, *TARGETS]
REFUSED = [*BAD_LINES, *BAD_TARGETS]
