"""What went wrong with a request to an endpoint, and what it means."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

import openai

Kind = Literal["request", "filtered", "passing", "unsent", "endpoint"]

# A gateway that gave up says nothing of the server behind it, which may go on and bill.
_MAYBE_BILLED = (408, 502, 504, 520, 522, 524)
_MODERATION = re.compile(r"content_?(?:filter|policy)|moderation|data_inspection", re.IGNORECASE)
# httpx's names for a connection that never stood; the client brings httpx under more than one name.
_UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError")


class Fault(Exception):
    """One request to one endpoint that gave no reply.

    kind: request (it will be refused anywhere), filtered (moderation refused what the prompt says), passing (again may
    help), unsent (no connection), endpoint (nobody is served here). after: seconds that the server wants to be left
    alone, None if it does not say. billed: None where it may have been. status: HTTP's, 0 where there was none.
    """

    def __init__(
        self, kind: Kind, message: str, after: float | None = None, billed: bool | None = False, status: int = 0
    ):
        super().__init__(message)
        self.kind: Kind = kind
        self.after = after
        self.billed = billed
        self.status = status


def no_answer(at: str, reason: str, sent: bool) -> Fault:
    """at: how messages name the endpoint, its setting first. sent: whether the request may have gone out."""
    message = f"{at} does not answer ({reason}): start it, or set {at.partition('=')[0]}"
    return Fault("passing" if sent else "unsent", message, billed=None if sent else False)


def connection_fault(error: openai.APIConnectionError, at: str, timeout: float, key: str) -> Fault:
    """key: the environment variable that holds the endpoint's key."""
    late = isinstance(error, openai.APITimeoutError)
    reason = f"no reply in {timeout:g} s" if late else one_line(error.__cause__ or error, key)
    return no_answer(at, reason, sent=type(error.__cause__).__name__ not in _UNSENT)


def status_fault(error: openai.APIStatusError, at: str, key: str) -> Fault:
    code = error.status_code
    if code in (400, 403, 422) and _is_moderation(error.body):
        return Fault("filtered", one_line(error, key), billed=None, status=code)  # some bill what the filter has read
    if code in (401, 403):
        state = "the key in it was refused" if os.environ.get(key) else "it is not set"
        return Fault("endpoint", f"{at} refuses the request ({code}): set {key} ({state})")
    if code == 402 or (code == 429 and isinstance(error.body, dict) and error.body.get("code") == "insufficient_quota"):
        # Nobody is served before somebody has paid, and no dialogue is to blame for it.
        return Fault("endpoint", f"{at} serves no more on this account ({code}): {one_line(error, key)}", status=code)
    passing = code in (408, 409, 429) or code >= 500
    return Fault(
        "passing" if passing else "request",
        f"{at} failed a request ({code}): {one_line(error, key)}",
        retry_after(error.response.headers) if passing else None,
        None if code in _MAYBE_BILLED else False,
        code,
    )


def _is_moderation(body: object) -> bool:
    """Whether an error is about what this prompt says: its code or type names a filter, or it quotes what was found
    (as gateways do whose code is the status)."""
    if not isinstance(body, dict):
        return False
    found = body.get("metadata")
    flagged = isinstance(found, dict) and "flagged_input" in found
    return flagged or any(_MODERATION.search(str(body.get(name))) for name in ("code", "type"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or Retry-After (RFC 9110, 10.2.3: seconds or a date)."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if value.replace(".", "", 1).isdecimal():
            return float(value) / scale
    try:
        then = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except ValueError:
        return None
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()  # by the same clock as the other
    except ValueError:
        now = time.time()
    return max(0.0, then - now)


def one_line(error: BaseException, key: str) -> str:
    """The error without line breaks and without the key, which some servers send back."""
    body = error.body if isinstance(error, openai.APIStatusError) else None
    message = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(message or error or type(error).__name__).split())[:300]
    secret = os.environ.get(key)
    return text.replace(secret, "***") if secret else text
