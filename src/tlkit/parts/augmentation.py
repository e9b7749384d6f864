"""What an augmentation is, and its deterministic beginning."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Transform(Protocol):
    """A step of an augmentation, such as a transform of albumentations."""

    def __call__(self, *, image: NDArray[np.uint8]) -> Mapping[str, Any]:
        """Transforms uint8 RGB ``(H, W, 3)``; the result's ``image`` has the new pixels."""


class Augmentation(Transform, Protocol):
    """What an augmentation's factory returns, such as an ``albumentations.Compose``.

    It maps a decoded image of any size to ``(size, size, 3)``, `size` being ``preprocess.size``, and draws
    from generators of its own, which `set_random_seed` seeds.
    """

    def set_random_seed(self, seed: int) -> None:
        """Seeds the generators that the next call draws from."""


def split_fixed_steps(augmentation: Augmentation) -> tuple[Sequence[Transform], Augmentation]:
    """Copies an augmentation, divided into the deterministic steps that it starts with and the rest.

    A step declares that it draws nothing with an attribute ``fixed = True``. Its result can be cached.
    """
    import albumentations

    own: Any = copy.deepcopy(augmentation)
    if type(own) is not albumentations.Compose:
        return [], own
    fixed = list(takewhile(lambda step: getattr(step, "fixed", False), own.transforms))
    own.transforms = own.transforms[len(fixed) :]
    return fixed, own
