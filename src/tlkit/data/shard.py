"""A part of the images, for several computers that divide a frozen pass among themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tlkit.data.images import Image
from tlkit.errors import DataError


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of the images; which part an image is in depends on its bytes alone.

    Attributes:
        number: which part, from 1.
        count: the number of parts.
    """

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """Reads a part such as ``3/8``.

        Raises:
            DataError: it is none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        shard = Shard(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.number <= shard.count:
            raise DataError(f"{text!r} is not a part of the images: name one such as 1/8, the first of eight")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, image: Image) -> bool:
        """Returns whether an image is in this part."""
        return int(image.sha256[:15], 16) % self.count == self.number - 1
