"""The table of requests: chunk sizes, extensions, terminators and trailers (RFC 9112 section 7.1)."""

from __future__ import annotations

from asgiri.codec.events import Body, End
from asgiri.codec.rules import CHUNK_LINE_SIZE, EXTENSIONS_SIZE, NO_TRAILERS
from tests.codec.rows import CHUNKED, GOOD, SMALL, chunked, refused, row, text

LAST = b"0\r\n\r\n"
EXTENDED = b"1;" + b"e" * 3999 + b"\r\na\r\n"  # 4000 bytes of extension, one of content
ABC = Body(1, b"abc")

CHUNKS = [
    row(
        "chunked",
        CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n" + LAST,
        chunked(),
        Body(1, b"abc0123456789"),
        End(1, []),
    ),
    row("chunked and empty", CHUNKED + LAST, chunked(), End(1, [])),
    *[
        row(f"the chunk size {text(size)}", CHUNKED + size + b"\r\nabc\r\n" + LAST, chunked(), ABC, End(1, []))
        for size in (b"3", b"03", b"0000003", b"0" * 15 + b"3")
    ],
    *[
        row(
            f"the chunk size {text(size)}",
            CHUNKED + size + b"\r\n" + b"x" * int(size, 16) + b"\r\n" + LAST,
            chunked(),
            Body(1, b"x" * int(size, 16)),
            End(1, []),
        )
        for size in (b"a", b"F", b"0a", b"1F", b"f0")
    ],
    *[
        row(f"the last chunk {text(size)}", CHUNKED + b"3\r\nabc\r\n" + size + b"\r\n\r\n", chunked(), ABC, End(1, []))
        for size in (b"00", b"0" * 16, b"0;last", b'0 ; a = "b"')
    ],
    *[
        row(f"chunk extension {text(line)}", CHUNKED + b"3" + line + b"\r\nabc\r\n" + LAST, chunked(), ABC, End(1, []))
        for line in (
            *(
                b";a",
                b";a=b",
                b";a;b",
                b";a=b;c=d;e",
                b';a="b"',
                b';a=""',
                b';a="b";c',
                b";!#$%&'*+-.^_`|~=!#$%&'*+-.^_`|~",
            ),
            *(
                b';a="x;y"',
                b';a="x\\"y"',
                b';a="\\\\"',
                b';a="\t \xff"',
                b';a="\\\t\\ \\\xff"',
                b';a="b=c, d"',
                b';a="<>/"',
            ),
            *(b" ;a", b"\t;a", b"; a", b";a =b", b";a= b", b' \t; \ta\t =\t "b" ;c', b";a;a;a", b";0", b";a=0"),
        )
    ],
    row(
        "chunk extensions everywhere",
        CHUNKED + b'3;a\r\nabc\r\n2\r\nde\r\n1;b=1;c="x;y"\r\nf\r\n0;last\r\n\r\n',
        chunked(),
        Body(1, b"abcdef"),
        End(1, []),
    ),
    row(
        "a chunk extension as long as may be",
        CHUNKED + b"3;" + b"e" * (CHUNK_LINE_SIZE - 2) + b"\r\nabc\r\n" + LAST,
        chunked(),
        ABC,
        End(1, []),
    ),
    row(
        "chunk extensions as long as may be, and the content's length more",
        CHUNKED + EXTENDED * 4 + b"1;" + b"e" * (EXTENSIONS_SIZE - 15_996) + b"\r\na\r\n" + LAST,
        chunked(),
        Body(1, b"aaaaa"),
        End(1, []),
    ),
    row(
        "content that looks like the end of it",
        CHUNKED + b"5\r\n0\r\n\r\n\r\n4\r\n\r\n\r\n\r\n" + LAST,
        chunked(),
        Body(1, b"0\r\n\r\n\r\n\r\n"),
        End(1, []),
    ),
    row(
        "content that looks like a request",
        CHUNKED + b"%x\r\n" % len(GOOD) + GOOD + b"\r\n" + LAST,
        chunked(),
        Body(1, GOOD),
        End(1, []),
    ),
]

TRAILERS = [
    row(
        "trailers",
        CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-b:\r\nX-SUM:\t2 \t\r\n\r\n",
        chunked(),
        Body(1, b"a"),
        End(1, [(b"x-sum", b"1"), (b"x-b", b""), (b"x-sum", b"2")]),
    ),
    row("trailers without a body", CHUNKED + b"0\r\nX: 1\r\n\r\n", chunked(), End(1, [(b"x", b"1")])),
    row("trailers behind an extension", CHUNKED + b"0;a=b\r\nX: 1\r\n\r\n", chunked(), End(1, [(b"x", b"1")])),
    row(
        "trailers beyond ASCII",
        CHUNKED + b"0\r\nX: caf\xc3\xa9 \xff\r\nY: \x85\xa0\r\n\r\n",
        chunked(),
        End(1, [(b"x", b"caf\xc3\xa9 \xff"), (b"y", b"\x85\xa0")]),
    ),
    *[
        row(
            f"the trailer {text(line)} is dropped",
            CHUNKED + b"0\r\nX: 1\r\n" + line + b"\r\nY: 2\r\n\r\n",
            chunked(),
            kept,
        )
        for kept in [End(1, [(b"x", b"1"), (b"y", b"2")])]
        for line in (
            *(b"Content-Length: 5", b"Content-Length: x", b"Content-Length:", b"CONTENT-LENGTH: 5, 6"),
            *(
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip",
                b"Transfer-Encoding:",
                b"Host: b",
                b"Host: a b",
            ),
            *(b"Connection: close", b"Connection: upgrade\r\nUpgrade: x", b"Expect: 100-continue", b"TE: trailers"),
            *(b"Trailer: x", b"Authorization: x", b"Cookie: a=b", b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=x"),
            *(b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        )
    ],
    row(
        "all forbidden trailers",
        CHUNKED + b"0\r\n" + b"".join(b"%b: 1\r\n" % name for name in sorted(NO_TRAILERS)) + b"\r\n",
        chunked(),
        End(1, []),
    ),
    row(
        "trailers that are hardly forbidden",
        CHUNKED + b"0\r\nContent_Length: 5\r\nX-Host: b\r\n\r\n",
        chunked(),
        End(1, [(b"content_length", b"5"), (b"x-host", b"b")]),
    ),
]

BAD_SIZES = [
    *[
        refused(f"the chunk size {text(size)}", 400, CHUNKED + size + b"\r\nabc\r\n" + LAST, chunked())
        for size in (
            *(
                b"",
                b"g",
                b"-3",
                b"+3",
                b"0x3",
                b"0X3",
                b"x3",
                b"3h",
                b"3H",
                b"3L",
                b"3.0",
                b"3_0",
                b"1_0",
                b"3,",
                b"3,3",
                b"#3",
            ),
            *(
                b" 3",
                b"3 ",
                b"\t3",
                b"3\t",
                b"3 3",
                b" ",
                b"\t",
                b"3\xa0",
                b"\xa03",
                b"\xd9\xa3",
                b"\xef\xbc\x93",
                b"\xef\xbb\xbf3",
            ),
            *(
                b"3\x0b",
                b"\x0b3",
                b"3\x00",
                b"\x003",
                b"3\x0c",
                b"3\r",
                b"\r3",
                b"3\n",
                b"\n3",
                b"3\x7f",
                b"3\x1b",
                b'"3"',
            ),
            *(
                b"0" * 17,
                b"0" * 16 + b"3",
                b"f" * 17,
                b"1" + b"0" * 16,
                b"f" * 21,
                b"1" + b"0" * 4000,
                b"{3}",
                b"3:",
                b"3=",
                b"3/",
            ),
        )
    ],
    *[
        refused(f"chunk extension {text(line)}", 400, CHUNKED + b"3" + line + b"\r\nabc\r\n" + LAST, chunked())
        for line in (
            *(
                b";",
                b"; ",
                b";;",
                b";;a",
                b";a;",
                b";a; ",
                b";a;;b",
                b";a ",
                b";a\t",
                b";a=b ",
                b";=",
                b";=a",
                b";a=",
                b";a= ",
            ),
            *(
                b";a==b",
                b";a=b=c",
                b";a b",
                b";a=b c",
                b";a,b",
                b";a=b,c",
                b";(a)",
                b";a:b",
                b";a=[b]",
                b";\xe9",
                b";a=\xe9",
            ),
            *(
                b';"a"',
                b';a="',
                b';a="b',
                b';a="b\\',
                b';a="b\\"',
                b';a=b"',
                b';a="b"c',
                b';a="b""c"',
                b";a='b c'",
                b';a="b" c',
            ),
            *(b";a=\x00", b";a\x01", b';a="\x00"', b';a="\x7f"', b';a="\\\x00"', b';a="\x1b"', b";\x0ba", b"\x0b;a"),
            *(
                b";a\r",
                b";a\rb",
                b";a\n",
                b";a\nb",
                b';a="\r\n"',
                b';a="\n"',
                b';a="\r"',
                b";\r\n a",
                b";a=\r\n b",
                b",a",
                b" a",
            ),
        )
    ],
    refused("a size over the limit", 413, CHUNKED + b"9\r\n012345678\r\n", chunked(), limits=SMALL),
    refused("a size far over the limit", 413, CHUNKED + b"f" * 16 + b"\r\n", chunked(), limits=SMALL),
    refused("a size over the limit, with an extension", 413, CHUNKED + b"9;a\r\n", chunked(), limits=SMALL),
    refused(
        "sizes over the limit",
        413,
        CHUNKED + b"8\r\n01234567\r\n1\r\n8\r\n",
        chunked(),
        Body(1, b"01234567"),
        limits=SMALL,
    ),
    refused(
        "sizes over the limit, with zeros and extensions",
        413,
        CHUNKED + b"08;a\r\n01234567\r\n01;b\r\n8\r\n",
        chunked(),
        Body(1, b"01234567"),
        limits=SMALL,
    ),
    refused(
        "a chunk extension too long", 400, CHUNKED + b"3;" + b"e" * (CHUNK_LINE_SIZE - 1) + b"\r\nabc\r\n", chunked()
    ),
    refused("a chunk extension without an end", 400, CHUNKED + b"1;" + b"e" * 5000, chunked()),
    refused("a chunk size without an end", 400, CHUNKED + b"0" * 5000, chunked()),
    refused(
        "chunk extensions one too long",
        400,
        CHUNKED + EXTENDED * 4 + b"1;" + b"e" * (EXTENSIONS_SIZE - 15_995) + b"\r\na\r\n" + LAST,
        chunked(),
        Body(1, b"aaaa"),
    ),
    refused(
        "chunk extensions without an end",
        400,
        CHUNKED + EXTENDED * 6,
        chunked(),
        Body(1, b"aaaa"),
    ),
    refused("an extension of the last chunk too long", 400, CHUNKED + b"0;" + b"e" * 4095 + b"\r\n\r\n", chunked()),
]

BAD_ENDS = [
    *[
        refused(f"behind the chunk: {text(end)}", 400, CHUNKED + b"3\r\nabc" + end + LAST, chunked(), ABC)
        for end in (
            b"d\r\n",
            b"\n",
            b"\r",
            b"\r\r\n",
            b"\n\r",
            b" \r\n",
            b"\rd",
            b"",
            b"\x00\r\n",
            b"\t\r\n",
            b";a\r\n",
        )
    ],
    refused("a chunk shorter than its size", 400, CHUNKED + b"4\r\nabc\r\n" + LAST, chunked(), Body(1, b"abc\r")),
    *[
        refused(f"the last chunk {text(line)}", 400, CHUNKED + b"3\r\nabc\r\n" + line, chunked(), ABC)
        for line in (
            *(
                b"0\n\r\n",
                b"0\n\n",
                b"0\r\r\n",
                b"0 \r\n\r\n",
                b"-0\r\n\r\n",
                b"0x0\r\n\r\n",
                b"\r\n0\r\n\r\n",
                b"00000000000000000\r\n",
            ),
            *(b"0\r\n\n", b"0\r\n\r\r\n", b"0\r\n \r\n", b"0\r\n\t\r\n", b"0\r\n\rX", b"0\r\n\x00\r\n"),
        )
    ],
    *[
        refused(f"the trailer {text(line)}", 400, CHUNKED + b"0\r\nX: 1\r\n" + line + b"\r\n\r\n", chunked())
        for line in (
            *(
                b"no field",
                b"X",
                b": 1",
                b":",
                b"X : 1",
                b"X\t: 1",
                b" X: 1",
                b"\tX: 1",
                b" ",
                b"\xc3\xa9: 1",
                b"X(1): 1",
            ),
            *(
                b"X: \x01",
                b"X: \x00",
                b"X: \x7f",
                b"X\x00: 1",
                b"X: a\rb",
                b"X: a\r",
                b"X: a\nY: b",
                b"X: a\n",
                b"\nX: 1",
                b"\rX: 1",
            ),
            *(
                b"X:\r\n 1",
                b"X: 1\r\n 2",
                b"X: 1\r\n\t2",
                b"X: 1\r\n ",
                b"0",
                b"GET / HTTP/1.1\r\nHost: a",
                b"Content-Length : 5",
            ),
            *(b"Transfer-Encoding\x0b: chunked", b"Content-Length:\r\n 5"),
        )
    ],
    refused("a blank before the first trailer", 400, CHUNKED + b"0\r\n X: 1\r\n\r\n", chunked()),
    refused("a trailer that ends with LF alone", 400, CHUNKED + b"0\r\nX: 1\n\r\n", chunked()),
    refused("trailers that end with LF alone", 400, CHUNKED + b"0\r\nX: 1\r\n\n", chunked()),
    refused("many trailers", 431, CHUNKED + b"0\r\n" + b"A:\r\n" * 5 + b"\r\n", chunked(), limits=SMALL),
    refused("many forbidden trailers", 431, CHUNKED + b"0\r\n" + b"TE:\r\n" * 5 + b"\r\n", chunked(), limits=SMALL),
    refused(
        "many trailers and a malformed one", 431, CHUNKED + b"0\r\n" + b"A:\r\n" * 4 + b"A\r\n", chunked(), limits=SMALL
    ),
    refused(
        "long trailers",
        431,
        CHUNKED + b"0\r\nX: " + b"v" * 60 + b"\r\nY: " + b"v" * 11 + b"\r\n\r\n",
        chunked(),
        limits=SMALL,
    ),
    refused("a long trailer", 431, CHUNKED + b"0\r\nX: " + b"v" * 76 + b"\r\n\r\n", chunked(), limits=SMALL),
    refused("trailers without an end", 431, CHUNKED + b"0\r\nX: " + b"v" * 500, chunked(), limits=SMALL),
]

ACCEPTED = [*CHUNKS, *TRAILERS]
REFUSED = [*BAD_SIZES, *BAD_ENDS]
