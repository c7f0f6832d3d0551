"""HTTP as far as bringing and sending models needs it: one request, ranges, typed errors. Standard library only."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from llmos.syscalls.errors import BadArgument, Denied, Exists, LlmosError, NoSpace, NotFound, Unavailable

TIMEOUT_S = 30.0
MAX_JSON = 32 << 20
BLOCK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; a key is for the host that it was given for, and nothing goes from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
            raise urllib.error.HTTPError(req.full_url, code, f"it leads to {newurl}", headers, fp)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and before.netloc != after.netloc:
            following.remove_header("Authorization")
        return following


@contextmanager
def answer(
    url: str, headers: Mapping[str, str], method: str = "GET", body: IO[bytes] | bytes | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to one request, whose status is below 400.

    Raises:
        NotFound, Denied, Exists, NoSpace, BadArgument: what the server said.
        Unavailable: it cannot be reached, is busy or has failed.
    """
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S) as response:
            yield response
    except urllib.error.HTTPError as error:
        with error:
            raise _typed(url, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"{url} cannot be reached: {reason}") from None


def get_json(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """A JSON object. Raises like `answer`, and Unavailable when it is none."""
    with answer(url, headers) as response:
        found = response.read(MAX_JSON + 1)
    try:
        value = json.loads(found) if len(found) <= MAX_JSON else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unavailable(f"{url} did not answer with a JSON object; is it the right address?")
    return value


def blocks(url: str, headers: Mapping[str, str], start: int, end: int) -> Generator[bytes, None, None]:
    """The bytes from `start` to before `end` of what is there. Raises like `answer`."""
    wanted = {**headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with answer(url, wanted) as response:
        place = _RANGE.match(response.headers.get("Content-Range", ""))
        if response.status == 206 and (place is None or int(place[1]) != start):
            raise Unavailable(f"{url} answered with another range than bytes {start} to {end - 1}")
        left = end - start
        if response.status != 206:  # the server knows no ranges, so everything comes
            _skip(response, start)
        while left and (data := response.read1(min(BLOCK, left))):
            left -= len(data)
            yield data
        if left:
            raise Unavailable(f"{url} ended {left} bytes early; what was fetched is kept, so try again")


def _skip(response: http.client.HTTPResponse, count: int) -> None:
    while count and (data := response.read(min(BLOCK, count))):
        count -= len(data)


def _typed(url: str, error: urllib.error.HTTPError) -> LlmosError:
    said = _message(error.read(4096)) or str(error.reason)
    text = f"{url}: {said} (HTTP {error.code})"
    match error.code:
        case 401 | 403:
            return Denied(f"{text}; a key may be missing, see docs/pull-and-push.md", missing="key")
        case 404 | 410:
            return NotFound(text)
        case 409:
            return Exists(text)
        case 413 | 507:
            return NoSpace(text)
        case 408 | 429 | 500 | 502 | 503 | 504:
            return Unavailable(text, retry_after_ms=1000 * _seconds(error.headers.get("Retry-After")))
    return BadArgument(text, name="source", got=url, want="an address that answers")


def _message(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    inner = said.get("error") if isinstance(said, dict) else None
    text = inner.get("message") if isinstance(inner, dict) else inner
    return text if isinstance(text, str) else ""


def _seconds(text: str | None) -> int:
    return min(int(text), 3600) if text is not None and text.isdecimal() else 1
