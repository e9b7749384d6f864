"""Whether a host can be reached, told soon."""

from __future__ import annotations

import os
import time
from queue import Empty, Queue
from threading import Thread
from urllib.parse import urlsplit

#: Seconds until a host counts as out of reach; libraries' own loading tries for much longer.
PATIENCE = 3.0
#: Seconds for which a host that could not be reached is not asked again.
REMEMBERED = 30.0

_failures: dict[str, tuple[float, str]] = {}


def hub() -> str:
    """Where huggingface_hub gets timm's weights from."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def ask_ahead(url: str) -> None:
    """Begins to find out whether a host answers, for `unreachable` to know it later without waiting."""
    Thread(target=unreachable, args=(url,), daemon=True).start()


def unreachable(url: str) -> str | None:
    """Why `url`'s host does not answer within `PATIENCE` seconds; None if it does, whatever it says."""
    host = urlsplit(url).netloc
    when, reason = _failures.get(host, (0.0, ""))
    if reason and time.monotonic() - when < REMEMBERED:
        return reason
    answers: Queue[str | None] = Queue()

    def ask() -> None:
        import requests

        try:
            requests.head(url, timeout=PATIENCE, allow_redirects=False)
            answers.put(None)
        except requests.Timeout:
            answers.put("no answer")
        except (requests.RequestException, ValueError) as error:
            answers.put(_short(error))

    # a look-up of the host's name has no time-out of its own, hence a thread that nobody waits for
    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except Empty:
        answer = "no answer"
    if answer is not None:
        _failures[host] = (time.monotonic(), answer)
    return answer


def _short(error: Exception) -> str:
    """What the system said, without the wrappings of two libraries."""
    text = str(error)
    return text[text.rfind("[Errno") :].rstrip("'\")") if "[Errno" in text else text
