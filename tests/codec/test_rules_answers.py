"""The verdicts on answers that all engines share, by tables. What engines make of them is in test_answers.py."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from asgiri.codec import rules
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers

LENGTH = (b"content-length", b"1")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [
        ("GET", 200, True),
        ("GET", 404, True),
        ("GET", 205, True),
        ("GET", 103, False),
        ("GET", 204, False),
        ("GET", 304, False),
        ("HEAD", 200, False),
        ("HEAD", 500, False),
        ("", 400, True),
    ],
)
def test_which_answers_have_a_body(method: str, status: int, has_body: bool) -> None:
    assert rules.answer_has_body(method, status) is has_body


@pytest.mark.parametrize(
    ("status", "upgrade", "good"),
    [
        (100, False, True),
        (103, False, True),
        (199, False, True),
        (101, True, True),
        (101, False, False),
        (99, True, False),
        (200, True, False),
        (0, False, False),
        (-100, False, False),
    ],
)
def test_statuses_of_interim_answers(status: int, upgrade: bool, good: bool) -> None:
    with nullcontext() if good else pytest.raises(LocalProtocolError, match=str(status)):
        rules.check_informational(status, upgrade)


@pytest.mark.parametrize(
    ("status", "good"), [(200, True), (599, True), (299, True), (199, False), (600, False), (100, False), (-200, False)]
)
def test_statuses_of_final_answers(status: int, good: bool) -> None:
    with nullcontext() if good else pytest.raises(LocalProtocolError, match=str(status)):
        rules.check_final(status)


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        *[([(name, b"")], "token") for name in (b"", b"a b", b"a:", b"a\r\nb", b"a\x00", b"\xe9", b"a\n")],
        *[([(b"a", value)], "control") for value in (b"\r", b"\n", b"a\r\nb: c", b"\x00", b"\x1b[0m", b"\x7f", b"a\n")],
        ([(b"a", b""), (b"b\n", b"")], "token"),
        ([(b"a", b""), (b"b", b"\n")], "control"),
    ],
)
def test_fields_that_must_not_go_out(headers: Headers, word: str) -> None:
    with pytest.raises(LocalProtocolError, match=word) as refusal:
        rules.check_answer_fields(headers)
    assert str(refusal.value).isprintable(), "it is logged"
    with pytest.raises(LocalProtocolError, match=word):
        rules.check_answer_trailers(headers)


@pytest.mark.parametrize(
    "headers", [[], [(b"a", b"")], [(b"X-Y", b" \tcaf\xc3\xa9 \xff ")], [(b"!#$%&'*+-.^_`|~", b"1")]]
)
def test_fields_that_may(headers: Headers) -> None:
    rules.check_answer_fields(headers)
    rules.check_answer_trailers(headers)


@pytest.mark.parametrize("name", [*sorted(rules.NO_TRAILERS), b"Content-Length", b"HOST"])
def test_fields_that_are_no_trailers(name: bytes) -> None:
    rules.check_answer_fields([(name, b"1")])
    with pytest.raises(LocalProtocolError, match="trailer"):
        rules.check_answer_trailers([(b"x", b"1"), (name, b"1")])


@pytest.mark.parametrize(
    ("status", "headers", "fields"),
    [
        (200, [(b"a", b" \t1 2\t"), LENGTH, CHUNKED], [(b"a", b"1 2"), LENGTH]),
        (304, [LENGTH], [LENGTH]),
        (204, [(b"a", b"1"), (b"content-length", b"0"), CHUNKED], [(b"a", b"1")]),
        (204, [(b"Content-Length", b"0")], []),
        (103, [(b"link", b" </a>"), (b"content-length", b"0")], [(b"link", b"</a>")]),
    ],
)
def test_fields_as_they_go_out(status: int, headers: Headers, fields: Headers) -> None:
    assert rules.answer_fields(status, headers) == fields


@pytest.mark.parametrize("value", [b"gzip", b"", b"gzip, chunked", b"chunked, chunked", b"identity"])
def test_the_transfer_coding_is_not_the_application_s_to_choose(value: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="chunked"):
        rules.answer_fields(200, [(b"transfer-encoding", value)])


# (status, headers, whether the connection closes anyway, fields, whether one is the length, whether it closes)
@pytest.mark.parametrize(
    ("status", "headers", "close", "fields", "has_length", "closes"),
    [
        (200, [], False, [], False, False),
        (200, [], True, [], False, True),
        (200, [LENGTH, CHUNKED], False, [LENGTH], True, False),
        (204, [LENGTH], False, [], False, False),
        (304, [LENGTH], False, [LENGTH], True, False),
        (200, [(b"connection", b"x, Close"), LENGTH], False, [LENGTH], True, True),
        (200, [(b"connection", b"keep-alive")], False, [(b"connection", b"keep-alive")], False, False),
        (200, [(b"connection", b"keep-alive")], True, [], False, True),
        (200, [(b"connection", b"x"), (b"connection", b"close")], False, [], False, True),
    ],
)
def test_an_answer_is_framed_by_its_status_and_fields(
    status: int, headers: Headers, close: bool, fields: Headers, has_length: bool, closes: bool
) -> None:
    assert rules.framed(status, headers, close) == (fields, has_length, closes)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([], None),
        ([b"5"], 5),
        ([b" 05\t"], 5),
        ([b"9" * 18], 10**18 - 1),
    ],
)
def test_lengths_of_answers(values: list[bytes], size: int | None) -> None:
    assert rules.answer_length([(b"x", b"1"), *((b"content-length", value) for value in values)]) == size


@pytest.mark.parametrize(
    "values",
    [[b""], [b"+5"], [b"5 5"], [b"5, 5"], [b"5", b"5"], [b"0x5"], [b"\xb2"], [b"9" * 19], [b"9" * 5000], [b"5\n"]],
)
def test_lengths_of_answers_that_are_none(values: list[bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="content-length"):
        rules.answer_length([(b"content-length", value) for value in values])
