"""Checks within seconds whether a host can be reached."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from queue import Empty, Queue
from threading import Thread
from urllib.parse import urlsplit

from huggingface_hub import constants

#: Seconds after which a host counts as unreachable; the libraries' own loading code tries for much longer.
TIMEOUT = 3.0
#: Seconds for which a host that could not be reached is not asked again.
REMEMBER_FAILURE = 30.0

_offline = ContextVar("offline", default=False)
_failures: dict[str, tuple[float, str]] = {}


@contextmanager
def offline() -> Iterator[None]:
    """Makes every host unreachable to `why_unreachable`: files of others must not use the network."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def hub_url() -> str:
    """Returns the address that huggingface_hub downloads weights from."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def check_ahead(url: str) -> None:
    """Starts checking a host in the background, so that `why_unreachable` can answer at once later."""
    Thread(target=why_unreachable, args=(url,), daemon=True).start()


def why_unreachable(url: str) -> str | None:
    """Returns why the host of `url` does not answer within `TIMEOUT` seconds, or None if it does."""
    if _offline.get():
        return "the network is not used for a file that may be somebody else's"
    if url.startswith(hub_url()) and constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host = urlsplit(url).netloc
    failed_at, reason = _failures.get(host, (0.0, ""))
    if reason and time.monotonic() - failed_at < REMEMBER_FAILURE:
        return reason
    answers: Queue[str | None] = Queue()

    def ask() -> None:
        import requests

        try:
            requests.head(url, timeout=TIMEOUT, allow_redirects=False)
            answers.put(None)
        except requests.Timeout:
            answers.put("no answer")
        except (requests.RequestException, ValueError) as error:
            answers.put(_system_message(error))

    # looking up a host's name has no timeout of its own, hence a thread that is not waited for
    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except Empty:
        answer = "no answer"
    if answer is not None:
        _failures[host] = (time.monotonic(), answer)
    return answer


def _system_message(error: Exception) -> str:
    """Returns the operating system's message without what requests and urllib3 wrap around it."""
    text = str(error)
    return text[text.rfind("[Errno") :].rstrip("'\")") if "[Errno" in text else text
