"""What a client is told when a request cannot be answered."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not answered.

    Attributes:
        status: the HTTP status.
        retry_after: seconds after which the same request may succeed; None: it will not.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
