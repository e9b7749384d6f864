"""Computes the images of several requests together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tlkit.data.views import Pixels
from tlkit.inference.prediction import Prediction
from tlkit.inference.predictor import Predictor
from tlkit.serving.errors import RequestError


@dataclass
class _Item:
    """An image that waits, and its answer."""

    pixels: Pixels
    predictor: Predictor
    answer: Future[Prediction] = field(default_factory=Future)


class Batcher:
    """Runs a network on the images that are waiting, in one thread of its own.

    No image waits for a batch to fill up: while one batch is computed, the next one gathers.
    """

    def __init__(self, capacity: int, observe: Callable[[int], object] = lambda _: None) -> None:
        """Starts the thread.

        Args:
            capacity: how many images may wait.
            observe: called with the number of images of each batch.
        """
        self._waiting: queue.Queue[_Item | None] = queue.Queue()
        self._capacity = capacity
        self._count = 0
        self._lock = threading.Lock()
        self._observe = observe
        self._thread = threading.Thread(target=self._run, name="tlkit-serve", daemon=True)
        self._thread.start()

    def reserve(self, images: int) -> None:
        """Reserves room for images, which `submit` or `release` gives back.

        Raises:
            RequestError: there is no room now.
        """
        if images > self._capacity:
            raise RequestError(
                413, f"a request may hold at most {self._capacity} images, and this one holds {images}"
            )
        with self._lock:
            if self._count + images > self._capacity:
                raise RequestError(
                    429, f"{self._count} images are waiting already: try again later", retry_after=1
                )
            self._count += images

    def release(self, images: int) -> None:
        """Gives back the room of images."""
        with self._lock:
            self._count -= images

    @property
    def waiting(self) -> int:
        """The number of images that wait or are being computed."""
        return self._count

    def submit(self, predictor: Predictor, pixels: Sequence[Pixels]) -> list[Future[Prediction]]:
        """Queues images, for which there is room, and returns their predictions with all classes."""
        items = [_Item(image, predictor) for image in pixels]
        for item in items:
            self._waiting.put(item)
        return [item.answer for item in items]

    def stop(self) -> None:
        """Ends the thread once everything that waits has been answered."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        rest: _Item | None = None
        while True:
            first = rest or self._waiting.get()
            if first is None:
                return
            batch, rest, stopping = self._gather(first)
            self._answer(batch)
            if stopping:
                return

    def _gather(self, first: _Item) -> tuple[list[_Item], _Item | None, bool]:
        """Returns the batch that begins with an item, an item for the next one, and whether that is all."""
        batch = [first]
        while len(batch) < first.predictor.batch:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, None, True
            if item.predictor is not first.predictor:  # the model has been replaced
                return batch, item, False
            batch.append(item)
        return batch, None, False

    def _answer(self, batch: Sequence[_Item]) -> None:
        # whoever asked may have given up meanwhile
        batch = [item for item in batch if item.answer.set_running_or_notify_cancel()]
        if not batch:
            return
        self._observe(len(batch))
        predictor = batch[0].predictor
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
