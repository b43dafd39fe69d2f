"""The table of requests: Content-Length and Transfer-Encoding, and every way to blur them (RFC 9112 section 6)."""

from __future__ import annotations

from asgiri.codec.events import Body, End
from tests.codec.rows import (
    BY_CHUNKS,
    CHUNKED,
    GET,
    HOST_A,
    POST,
    SMALL,
    A,
    chunked,
    head,
    post,
    refused,
    request,
    row,
    text,
    with_length,
)

CL = b"Content-Length: "
TE = b"Transfer-Encoding: "
TE_CHUNKED = b"Transfer-Encoding: chunked"
ONE_CHUNK = b"1\r\na\r\n0\r\n\r\n"

LENGTHS = [
    row(
        "Content-Length",
        head(POST, A, CL + b"10") + b"0123\r\n6789",
        with_length(b"10"),
        Body(1, b"0123\r\n6789"),
        End(1, []),
    ),
    *[
        row(f"Content-Length: {text(value)}", head(POST, A, CL + value), with_length(value, end_stream=True))
        for value in (b"0", b"00", b"0" * 18)
    ],
    *[
        row(
            f"Content-Length:{text(value)}",
            head(POST, A, b"Content-Length:" + value) + b"abcde",
            with_length(value.strip(b" \t")),
            Body(1, b"abcde"),
            End(1, []),
        )
        for value in (b"5", b" 5 ", b" 5\t", b"\t5", b" \t 5 \t ", b" 005", b"0" * 17 + b"5")
    ],
    *[
        row(
            f"a body with {method}",
            head(method.encode() + b" / HTTP/1.1", A, CL + b"1") + b"a",
            request(method, headers=[*HOST_A, (b"content-length", b"1")], end_stream=False),
            Body(1, b"a"),
            End(1, []),
        )
        for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PATCH", "QUERY", "FOO", "PRI")
    ],
    *[
        row(
            f"a body with {text(line)}",
            head(line, A, CL + b"1") + b"a",
            post(
                [*HOST_A, (b"content-length", b"1")],
                target=line.split(b" ")[1],
                path=line.split(b" ")[1],
                http_version=line[-3:].decode().replace("2", "1"),
            ),
            Body(1, b"a"),
            End(1, []),
            last=line.endswith(b"1.0"),
        )
        for line in (
            b"POST / HTTP/1.0",
            b"POST / HTTP/1.2",
            b'POST /"<\xc3\xa9> HTTP/1.1',
            b"POST /" + b"x" * 99 + b" HTTP/1.1",
        )
    ],
    row(
        "a body that looks like a request",
        head(POST, A, CL + b"38") + b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n",
        with_length(b"38"),
        Body(1, b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"),
        End(1, []),
    ),
    row(
        "a body that looks chunked",
        head(POST, A, CL + b"5") + b"0\r\n\r\n",
        with_length(b"5"),
        Body(1, b"0\r\n\r\n"),
        End(1, []),
    ),
    row(
        "a body of any bytes",
        head(POST, A, CL + b"256") + bytes(range(256)),
        with_length(b"256"),
        Body(1, bytes(range(256))),
        End(1, []),
    ),
]

CODINGS = [
    *[
        row(text(line), head(POST, A, line) + ONE_CHUNK, chunked(), Body(1, b"a"), End(1, []))
        for line in (
            TE_CHUNKED,
            b"Transfer-Encoding:chunked",
            b"Transfer-Encoding:\tchunked",
            b"Transfer-Encoding: chunked\t",
            b"Transfer-Encoding: \t chunked \t ",
            b"Transfer-Encoding: CHUNKED",
            b"tRANSFER-eNCODING: cHuNkEd",
        )
    ],
    *[
        row(
            f"chunks with {method}",
            head(method.encode() + b" / HTTP/1.1", A, TE_CHUNKED) + ONE_CHUNK,
            request(method, headers=[*HOST_A, BY_CHUNKS], end_stream=False),
            Body(1, b"a"),
            End(1, []),
        )
        for method in ("GET", "HEAD", "OPTIONS", "FOO")
    ],
    row(
        "chunks in HTTP/1.2",
        head(b"POST / HTTP/1.2", A, TE_CHUNKED) + ONE_CHUNK,
        chunked(),
        Body(1, b"a"),
        End(1, []),
    ),
    row(
        "chunks, and a field that is hardly one of framing",
        head(POST, A, b"Transfer_Encoding: identity", TE_CHUNKED, b"Content_Length: 9") + ONE_CHUNK,
        post([*HOST_A, (b"transfer_encoding", b"identity"), BY_CHUNKS, (b"content_length", b"9")]),
        Body(1, b"a"),
        End(1, []),
    ),
    row(
        "chunks and an expectation",
        head(POST, A, TE_CHUNKED, b"Expect: x, 100-continue") + ONE_CHUNK,
        post([*HOST_A, BY_CHUNKS, (b"expect", b"x, 100-continue")], expect_continue=True),
        Body(1, b"a"),
        End(1, []),
    ),
    row(
        "chunks and close",
        head(POST, b"Connection: close", TE_CHUNKED, A) + ONE_CHUNK,
        post([(b"connection", b"close"), BY_CHUNKS, *HOST_A]),
        Body(1, b"a"),
        End(1, []),
        last=True,
    ),
]

BAD_LENGTHS = [
    *[
        refused(f"Content-Length: {text(value)}", 400, head(POST, A, CL + value) + b"abcde")
        for value in (
            *(
                b"",
                b" ",
                b"+5",
                b"-5",
                b"+0",
                b"-0",
                b"5.0",
                b"5.",
                b".5",
                b"5e0",
                b"0x5",
                b"0b1",
                b"0o5",
                b"x5",
                b"5h",
            ),
            *(
                b"5 5",
                b"5\t5",
                b"5_0",
                b"5,",
                b",5",
                b",",
                b"5, 5",
                b"5,5",
                b"5, 6",
                b"5;",
                b"5;a=b",
                b"5 ;",
                b"a",
                b"five",
            ),
            *(
                b'"5"',
                b"'5'",
                b"(5)",
                b"5\\",
                b"\xb2",
                b"5\xa0",
                b"\xa05",
                b"5\x85",
                b"\xd9\xa5",
                b"\xef\xbc\x95",
                b"5L",
            ),
            *(
                b"5\x0b",
                b"\x0b5",
                b"\x0c5",
                b"5\x0c",
                b"5\x00",
                b"\x005",
                b"5\r",
                b"\r5",
                b"5\n",
                b"\n5",
                b"5\x7f",
                b"\x085",
            ),
            *(b"keep-alive", b"chunked", b"null", b"NaN", b"1,000", b"5 bytes", b"5" + b"0" * 30 + b"x"),
        )
    ],
    *[
        refused(f"{len(value)} digits of Content-Length, {text(value)}", 413, head(POST, A, CL + value) + b"abcde")
        for value in (
            *(b"9" * 19, b"1" + b"0" * 18, b"18446744073709551615", b"18446744073709551616", b"18446744073709551621"),
            *(b"0" * 18 + b"5", b"0" * 19, b"0" * 60 + b"5", b"9" * 5000),
        )
    ],
    *[
        refused(
            f"Content-Lengths: {text(b' + '.join(values))}", 400, head(POST, A, *[CL + v for v in values]) + b"abcde"
        )
        for values in (
            *(
                [b"5", b"5"],
                [b"5", b"6"],
                [b"6", b"5"],
                [b"5", b"05"],
                [b"5", b""],
                [b"", b"5"],
                [b"0", b"5"],
                [b"5", b"0"],
            ),
            *([b"0", b"0"], [b"5", b"5", b"5"], [b"5", b"+5"], [b"5", b"5, 5"], [b"9" * 19, b"5"]),
        )
    ],
    refused("Content-Lengths in two cases", 400, head(POST, A, b"content-length: 5", b"CONTENT-LENGTH: 5") + b"abcde"),
    refused("Content-Lengths far apart", 400, head(POST, CL + b"5", A, b"X: 1", CL + b"4") + b"abcde"),
    refused("two Content-Lengths with GET", 400, head(GET, A, CL + b"0", CL + b"1")),
    *[
        refused(f"the field line {text(line)}", 400, head(POST, A, line) + b"abcde")
        for line in (
            *(b"Content-Length : 5", b"Content-Length\t: 5", b" Content-Length: 5", b"Content-Length\x0b: 5"),
            *(b"Content-Length\x00: 5", b"Content Length: 5", b"Content-Length 5", b"Content-Length\xa0: 5"),
            *(
                b"X: 1\nContent-Length: 5",
                b"X: 1\rContent-Length: 5",
                b"Content-Length:\r\n 5",
                b"Content-Length: \r\n\t5",
            ),
            *(b"Content-Length: 5\r\n 5", b"Content-Length: 5\r\n\t", b"Content-Length:\n5", b"\x00Content-Length: 5"),
        )
    ],
    refused("a Content-Length over the limit", 413, head(POST, A, CL + b"9"), limits=SMALL),
    refused("a Content-Length over the limit, in HTTP/1.0", 413, head(b"POST / HTTP/1.0", CL + b"9"), limits=SMALL),
    refused("a long Content-Length over the limit", 413, head(POST, A, CL + b"9" * 18), limits=SMALL),
]

BAD_CODINGS = [
    *[
        refused(f"Transfer-Encoding: {text(value)}", 400, head(POST, A, TE + value) + ONE_CHUNK)
        for value in (
            *(
                b"",
                b" ",
                b",",
                b",,",
                b"chunked,",
                b"chunked ,",
                b",chunked",
                b", chunked",
                b"chunked,,",
                b"chunked, ,",
            ),
            *(b"chunked, chunked", b"chunked,chunked", b"chunked, gzip", b"chunked, identity", b"chunked, x, chunked"),
            *(
                b"gzip, , chunked",
                b",gzip,chunked",
                b"gzip",
                b"identity",
                b"deflate",
                b"compress",
                b"x",
                b"cow",
                b"none",
            ),
            *(
                b"chunked;",
                b"chunked;q=1",
                b"chunked; q=0",
                b"chunked ;a=b",
                b"chunked=1",
                b"gzip;chunked",
                b"gzip chunked",
            ),
            *(b"xchunked", b"x-chunked", b"chunkedx", b"chunke", b"chunk", b"hunked", b"chun ked", b"chunked chunked"),
            *(
                b"chunked\tchunked",
                b"chunked identity",
                b'"chunked"',
                b"'chunked'",
                b"<chunked>",
                b"(chunked)",
                b"[chunked]",
            ),
            *(
                b'"chunked',
                b'chunked"',
                b"\\chunked",
                b"chunked\\",
                b"chunked/1.1",
                b"chunked:",
                b":chunked",
                b"chunked.",
            ),
            *(b"*", b"true", b"1", b"keep-alive", b"close", b"chun%6bed", b"chunked%20", b"chunked\\r\\n"),
            *(
                b"\xa0chunked",
                b"chunked\xa0",
                b"\x85chunked",
                b"\xffchunked",
                b"\xe2\x80\x8bchunked",
                b"chun\xe2\x84\xaaed",
            ),
            *(b"\xef\xbb\xbfchunked", b"chunked\xc2\xa0", b"identity, \xa0chunked"),
            *(
                b"\x00chunked",
                b"chunked\x00",
                b"chunked\x00, x",
                b"\x0bchunked",
                b"chunked\x0b",
                b"\x0cchunked",
                b"chunked\x0c",
            ),
            *(b"\x08chunked", b"chunked\x08", b"\x1fchunked", b"\x7fchunked", b"chunked\x7f", b"identity, \x0bchunked"),
            *(b"\rchunked", b"chunked\r", b"\nchunked", b"chunked\n", b"\n chunked", b"\r\n chunked", b"\r\n\tchunked"),
            *(b"chunked\r\n , identity", b"chunked\r\n ", b"x\r\n chunked", b"gzip,\r\n chunked"),
        )
    ],
    *[
        refused(f"Transfer-Encoding: {text(value)}", 501, head(POST, A, TE + value) + ONE_CHUNK)
        for value in (
            *(b"gzip, chunked", b"gzip,chunked", b"gzip ,\tchunked", b"identity, chunked", b"deflate, gzip, chunked"),
            *(b"x, CHUNKED", b"xchunked, chunked", b"x;a=b, chunked", b"chunked;a=b, chunked", b'"chunked", chunked'),
        )
    ],
    *[
        refused(
            f"Transfer-Encodings: {text(b' + '.join(values))}",
            status,
            head(POST, A, *[TE + value for value in values]) + ONE_CHUNK,
        )
        for values, status in [
            ([b"chunked", b"chunked"], 400),
            ([b"chunked", b"CHUNKED"], 400),
            ([b"chunked", b"identity"], 400),
            ([b"chunked", b"cow"], 400),
            ([b"chunked", b""], 400),
            ([b"", b"chunked"], 400),
            ([b"chunked", b"chunked", b"chunked"], 400),
            ([b"chunked", b"x", b"chunked"], 400),
            ([b"identity", b"identity"], 400),
            ([b"identity", b"chunked"], 501),
            ([b"cow", b"chunked"], 501),
            ([b"gzip", b"deflate, chunked"], 501),
        ]
    ],
    refused(
        "Transfer-Encodings far apart", 400, head(POST, TE_CHUNKED, A, b"X: 1", b"transfer-encoding: x") + ONE_CHUNK
    ),
    *[
        refused(f"the field line {text(line)}", 400, head(POST, A, line) + ONE_CHUNK)
        for line in (
            *(b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b"Transfer-Encoding \t : chunked"),
            *(b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"\x0bTransfer-Encoding: chunked"),
            *(b"Transfer-Encoding\x0b: chunked", b"Transfer-Encoding\x00: chunked", b"\x00Transfer-Encoding: chunked"),
            *(b"Transfer-Encoding\xa0: chunked", b"Transfer\xa0Encoding: chunked", b"\xefTransfer-Encoding: chunked"),
            *(
                b"Transfer Encoding: chunked",
                b"Transfer-Encoding;: chunked",
                b"Transfer-Encoding=chunked",
                b":" + TE_CHUNKED,
            ),
            *(
                b"Transfer-Encoding chunked",
                b"Transfer-Encoding",
                b'"Transfer-Encoding": chunked',
                b"Transfer-\rEncoding: chunked",
            ),
            *(b"Transfer-Encoding\r: chunked", b"Transfer-Encoding\n: chunked", b"Transfer-Encoding\r\n: chunked"),
            *(
                b"Transfer-\r\n Encoding: chunked",
                b"X: 1\n" + TE_CHUNKED,
                b"X: 1\r" + TE_CHUNKED,
                b"X: 1\r\r\n" + TE_CHUNKED,
            ),
            *(
                b"X: 1\n\r" + TE_CHUNKED,
                b"X: 1\r\n " + TE_CHUNKED,
                b"X: 1\r\n\t" + TE_CHUNKED,
                b"X: 1\x00" + TE_CHUNKED,
            ),
            *(
                b"X: 1\x0b" + TE_CHUNKED,
                b"\r" + TE_CHUNKED,
                b"\n" + TE_CHUNKED,
                TE_CHUNKED + b"\n",
                TE_CHUNKED + b"\rX: 1",
            ),
        )
    ],
    *[
        refused(f"{text(line)} with {text(b' + '.join(fields))}", 400, head(line, A, *fields) + ONE_CHUNK)
        for line, fields in [
            (POST, [CL + b"5", TE_CHUNKED]),
            (POST, [TE_CHUNKED, CL + b"5"]),
            (POST, [TE_CHUNKED, CL + b"0"]),
            (GET, [CL + b"0", TE_CHUNKED]),
            (POST, [CL + b"5", TE + b"gzip"]),
            (POST, [CL + b"5", TE + b"identity"]),
            (POST, [CL + b"5", TE]),
            (POST, [CL + b"5", TE + b"gzip, chunked"]),
            (POST, [CL + b"+5", TE_CHUNKED]),
            (POST, [CL, TE_CHUNKED]),
            (POST, [CL + b"9" * 30, TE_CHUNKED]),
            (POST, [CL + b"5", b"transfer-encoding:CHUNKED"]),
            (POST, [CL + b"5", b"X: 1", TE_CHUNKED, CL + b"5"]),
            (POST, [b"Connection: Content-Length", CL + b"5", TE_CHUNKED]),
            (b"POST / HTTP/1.2", [CL + b"5", TE_CHUNKED]),
            (b"POST / HTTP/1.0", [CL + b"5", TE_CHUNKED]),
            (b"POST / HTTP/1.0", [TE_CHUNKED]),
            (b"GET / HTTP/1.0", [TE_CHUNKED, b"Connection: keep-alive"]),
            (b"POST / HTTP/1.0", [TE + b"identity"]),
            (b"POST / HTTP/1.0", [TE + b"gzip, chunked"]),
            (b"FOO / HTTP/1.1", [CL + b"5", TE_CHUNKED]),
            (b"HEAD / HTTP/1.1", [CL + b"5", TE_CHUNKED]),
            (POST, [b"Connection: upgrade", b"Upgrade: x", CL + b"5", TE_CHUNKED]),
        ]
    ],
    refused("a body that is none of chunks", 400, CHUNKED + b"{}\r\n", chunked()),
]

ACCEPTED = [*LENGTHS, *CODINGS]
REFUSED = [*BAD_LENGTHS, *BAD_CODINGS]
