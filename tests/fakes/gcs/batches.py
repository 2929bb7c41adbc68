"""Several calls in one request: its body has a part for each, which is a request by itself."""

import email
import http
from collections.abc import Iterable
from urllib.parse import parse_qsl

from aiohttp import web

from tests.fakes.gcs import calls
from tests.fakes.gcs.store import ApiError

MAX_PARTS = 100
_BOUNDARY = "batch_of_answers"


def parts(call: calls.Call) -> list[calls.Call]:
    """Returns the calls that a batch consists of."""
    content_type = call.headers.get("Content-Type", "")
    message = email.message_from_bytes(f"Content-Type: {content_type}\n\n".encode() + call.body)
    found = list(message.walk())[1:] if message.is_multipart() else []
    if not 0 < len(found) <= MAX_PARTS:
        raise ApiError(400, f"A batch has 1 to {MAX_PARTS} parts, not {len(found)}.")
    return [_part(str(part.get_payload()), call.base) for part in found]


def _part(text: str, base: str) -> calls.Call:
    line, _, rest = text.lstrip().partition("\n")
    method, address, _ = line.split()
    path, _, query = address.removeprefix(base).partition("?")
    request = email.message_from_string(rest)
    body = str(request.get_payload()).encode()
    return calls.parse(method, path, dict(parse_qsl(query)), dict(request.items()), body, base)


def joined(answers: Iterable[web.Response]) -> web.Response:
    """Returns one response with a part for each answer."""
    text = ""
    for answer in answers:
        body = answer.body.decode() if isinstance(answer.body, bytes) else ""
        status = f"{answer.status} {http.HTTPStatus(answer.status).phrase}"
        text += f"--{_BOUNDARY}\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n"
        text += f"Content-Type: {answer.content_type}\r\nContent-Length: {len(body)}\r\n\r\n{body}\r\n"
    text += f"--{_BOUNDARY}--\r\n"
    return web.Response(body=text.encode(), headers={"Content-Type": f"multipart/mixed; boundary={_BOUNDARY}"})
