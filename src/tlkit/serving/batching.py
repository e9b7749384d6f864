"""Computes the images of several requests together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from tlkit.data.views import Pixels
from tlkit.inference.prediction import Prediction
from tlkit.inference.predictor import Predictor
from tlkit.serving.errors import RequestError


@dataclass
class _Item:
    """An image that waits, and its answer."""

    pixels: Pixels
    answer: Future[Prediction] = field(default_factory=Future)


class Batcher:
    """Runs networks on the images that are waiting, in one thread of its own.

    No image waits for a batch to fill up: while one batch is computed, the next ones gather. A batch has
    images of one model, in their order; models take turns.
    """

    def __init__(self, capacity: int, observe: Callable[[int], object] = lambda _: None) -> None:
        """Starts the thread.

        Args:
            capacity: how many images may wait.
            observe: called with the number of images of each batch.
        """
        self._waiting: dict[Predictor, list[_Item]] = {}
        self._stopping = False
        self._capacity = capacity
        self._count = 0
        self._changed = threading.Condition()
        self._observe = observe
        self._thread = threading.Thread(target=self._run, name="tlkit-serve", daemon=True)
        self._thread.start()

    @contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Reserves room for images, until they have been answered.

        Raises:
            RequestError: there is no room now.
        """
        if images > self._capacity:
            raise RequestError(
                413, f"a request may hold at most {self._capacity} images, and this one holds {images}"
            )
        with self._changed:
            self.check_room(images)
            self._count += images
        try:
            yield
        finally:
            with self._changed:
                self._count -= images

    def check_room(self, images: int = 1) -> None:
        """Checks that there is room for images now.

        Raises:
            RequestError: there is none.
        """
        if self._count + images > self._capacity:
            raise RequestError(
                429, f"{self._count} images are waiting already: try again later", retry_after=1
            )

    @property
    def waiting(self) -> int:
        """The number of images that wait or are being computed."""
        return self._count

    def submit(self, predictor: Predictor, pixels: Sequence[Pixels]) -> list[Future[Prediction]]:
        """Queues images, for which there is room, and returns their predictions with all classes."""
        items = [_Item(image) for image in pixels]
        with self._changed:
            self._waiting.setdefault(predictor, []).extend(items)
            self._changed.notify()
        return [item.answer for item in items]

    def stop(self) -> None:
        """Ends the thread once everything that waits has been answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._answer(*batch)

    def _next_batch(self) -> tuple[Predictor, list[_Item]] | None:
        """Waits for images and returns a batch; None: everything has been answered and no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            predictor = next(iter(self._waiting))
            items = self._waiting.pop(predictor)
            if rest := items[predictor.batch :]:
                self._waiting[predictor] = rest  # behind the other models
            return predictor, items[: predictor.batch]

    def _answer(self, predictor: Predictor, batch: Sequence[_Item]) -> None:
        # whoever asked may have given up meanwhile
        batch = [item for item in batch if item.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        self._observe(len(batch))
        try:
            predictions = predictor.predict_pixels(
                [item.pixels for item in batch], top=len(predictor.classes)
            )
        except Exception as error:
            for item in batch:
                item.answer.set_exception(error)
            return
        for item, prediction in zip(batch, predictions, strict=True):
            item.answer.set_result(prediction)
