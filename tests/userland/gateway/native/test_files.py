"""Files over HTTP: whole, in ranges, replaced as a whole, gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest
from gateway_server import GatewayServer, serving
from hypothesis import given
from hypothesis import strategies as st
from system.kernel_process import KernelProcess

from llmos.userland.gateway.core.errors import HttpError
from llmos.userland.gateway.native.files import etag, range_of

URL = "/api/v1/files/home/me/"


@pytest.fixture
def http(gateway: GatewayServer) -> httpx2.Client:
    return gateway.client()


def test_a_file_is_put_read_and_removed(http: httpx2.Client) -> None:
    content = bytes(range(256)) * 20_000  # more than one chunk
    put = http.put(f"{URL}a/b.bin", content=content)
    assert put.status_code == 201 and put.json()["value"]["path"] == "/home/me/a/b.bin"
    assert put.json()["value"]["bytes"] == len(content)
    got = http.get(f"{URL}a/b.bin")
    assert got.content == content and got.headers["content-disposition"] == "attachment"
    assert got.headers["x-content-type-options"] == "nosniff"
    head = http.head(f"{URL}a/b.bin")
    assert head.content == b"" and head.headers["content-length"] == str(len(content))
    assert [entry["path"] for entry in http.get("/api/v1/list/home/me/a").json()["value"]] == ["/home/me/a/b.bin"]
    assert http.delete(f"{URL}a/b.bin").json()["value"] == {}
    assert http.get(f"{URL}a/b.bin").status_code == 404


def test_a_range_of_a_file(http: httpx2.Client) -> None:
    http.put(f"{URL}r", content=b"0123456789")
    for wanted, content, told in (
        ("bytes=2-4", b"234", "bytes 2-4/10"), ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"), ("bytes=0-99", b"0123456789", "bytes 0-9/10"),
    ):  # fmt: skip
        got = http.get(f"{URL}r", headers={"range": wanted})
        assert (got.status_code, got.content, got.headers["content-range"]) == (206, content, told)
    behind = http.get(f"{URL}r", headers={"range": "bytes=10-"})
    assert behind.status_code == 416 and behind.headers["content-range"] == "bytes */10"
    assert http.get(f"{URL}r", headers={"range": "lines=1-2"}).status_code == 200


@given(st.integers(0, 50), st.integers(-1, 60), st.integers(-1, 60))
def test_a_range_lies_in_the_file(size: int, first: int, last: int) -> None:
    header = f"bytes={first if first >= 0 else ''}-{last if last >= 0 else ''}"
    content = bytes(range(size))
    try:
        start, count, status = range_of(header, size)
    except HttpError as error:
        assert error.status == 416 and (first >= size or (first < 0 and (last == 0 or not size)))
        return
    got = content[start : start + count]
    assert len(got) == count
    if status == 200:
        assert got == content
    elif first < 0:
        assert got == content[-last:]
    else:
        assert got == content[first : last + 1 if last >= 0 else None]


def test_a_version_is_a_tag() -> None:
    assert etag('a"b c') == '"a_b_c"'


def test_a_file_is_replaced_only_where_it_is_as_expected(http: httpx2.Client) -> None:
    http.put(f"{URL}v", content=b"one")
    tag = http.get(f"{URL}v").headers["etag"]
    assert http.put(f"{URL}v", content=b"two", headers={"if-match": tag}).status_code == 201
    assert http.put(f"{URL}v", content=b"three", headers={"if-match": tag}).status_code == 409
    assert http.get(f"{URL}v").content == b"two"


def test_only_a_keys_own_folder_is_written(http: httpx2.Client) -> None:
    for path in ("models/null/config.json", "models/new/x", "home/me", "home/me/"):
        assert http.put(f"/api/v1/files/{path}", content=b"x").status_code in (400, 403), path
    assert http.delete("/api/v1/files/models/null").status_code == 403
    assert b"llama" in http.get("/api/v1/files/models/null/config.json").content
    assert http.get("/api/v1/files/models").status_code in (400, 404)


def test_half_a_file_is_none(http: httpx2.Client, gateway: GatewayServer) -> None:
    http.put(f"{URL}h", content=b"before")
    key = http.headers["authorization"]
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        head = f"PUT {URL}h HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b"half")
    assert http.get(f"{URL}h").content == b"before"

    def pieces() -> Iterator[bytes]:
        yield b"whole "
        yield b"in pieces"

    assert http.put(f"{URL}h", content=pieces()).status_code == 201
    assert http.get(f"{URL}h").content == b"whole in pieces"


def test_a_file_beyond_the_limit_is_refused(gateway_kernel: KernelProcess) -> None:
    with serving(gateway_kernel, upload_bytes=1000) as small:
        http = small.client()
        assert http.put(f"{URL}big", content=b"x" * 1001).status_code == 413
        assert http.put(f"{URL}big", content=iter([b"x" * 600, b"x" * 600])).status_code == 413
        assert http.get(f"{URL}big").status_code == 404
        assert http.put(f"{URL}big", content=b"x" * 1000).status_code == 201
