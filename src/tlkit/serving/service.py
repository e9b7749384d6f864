"""Answers requests for predictions: decodes their images, and computes those of several requests together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tlkit.data.images import UnreadableImage, decode, refuse_unreadable
from tlkit.data.views import Pixels
from tlkit.errors import DataError, RunFolderError
from tlkit.inference.pixels import read_pixels
from tlkit.inference.prediction import Prediction
from tlkit.interpret.png import png_bytes
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.processors import reader_threads
from tlkit.serving.batching import Batcher
from tlkit.serving.errors import RequestError
from tlkit.serving.metrics import Metrics
from tlkit.serving.models import Models, ServedModel

#: An image as a client sends it: the content of a file, or pixels uint8 ``(H, W, 3)``.
SentImage = bytes | NDArray[np.uint8]
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes on.

    Attributes:
        max_bytes: size of a request's body.
        max_waiting: number of images that may wait, of all requests.
        seconds: within which a request is answered, or given up.
    """

    max_bytes: int = 32_000_000
    max_waiting: int = 256
    seconds: float = 30.0


class Service:
    """What all of a service's paths share.

    Attributes:
        models: the classifiers.
        limits: what it takes on.
        metrics: what it counts.
        stopping: whether it ends as soon as it has answered what it has accepted.
    """

    def __init__(self, models: Models, limits: ServiceLimits) -> None:
        """Starts its threads; `stop` ends them."""
        self.models = models
        self.limits = limits
        self.metrics = Metrics()
        self.stopping = False
        self._batcher = Batcher(limits.max_waiting, self.metrics.batches.observe)
        self.metrics.waiting.set_function(lambda: self._batcher.waiting)
        # no more decoded images are in memory at once than threads decode
        self._decoders = ThreadPoolExecutor(reader_threads(), "tlkit-decode")
        self._explainer = ThreadPoolExecutor(1, "tlkit-explain")

    def stop(self) -> None:
        """Answers everything that waits, and ends its threads."""
        self.stopping = True
        self._decoders.shutdown()
        self._batcher.stop()
        self._explainer.shutdown()

    def check_room(self) -> None:
        """Checks that there is room for one more image.

        Raises:
            RequestError: as many images wait as may.
        """
        self._batcher.check_room()

    async def parse(self, function: Callable[..., Parsed], *arguments: object) -> Parsed:
        """Parses a body in a thread: a large one takes long enough to hold up the other requests.

        Raises:
            RequestError: the body has another form, or there is no time now.
        """
        async with self._deadline():
            return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def predict(self, model: ServedModel, images: Sequence[SentImage]) -> list[Prediction]:
        """Predicts images, with the probabilities of all classes.

        Raises:
            RequestError: there are none, one cannot be read, or there is no room or time for them now.
        """
        if not images:
            raise RequestError(422, "the request holds no image")
        predictor, loop = model.predictor, asyncio.get_running_loop()
        with self._batcher.room(len(images)):
            async with self._deadline():
                decoding = [
                    loop.run_in_executor(self._decoders, _decode, image, predictor.preprocess)
                    for image in images
                ]
                pixels = _refuse_unreadable(await asyncio.gather(*decoding))
                answers = self._batcher.submit(predictor, pixels)
                predictions = await asyncio.gather(*map(asyncio.wrap_future, answers))
        for prediction in predictions:
            for label in _counted_labels(prediction):
                self.metrics.images.labels(model.name, label).inc()
        return predictions

    async def explain(self, model: ServedModel, image: bytes) -> bytes:
        """Returns a heat map over an image as PNG: where the classifier looks.

        Raises:
            RequestError: the image cannot be read, the model is an exported file, or there is no room or time
                for it now.
        """
        loop = asyncio.get_running_loop()
        try:
            with self._batcher.room(1):
                async with self._deadline():
                    return await loop.run_in_executor(self._explainer, _explain, image, model)
        except (UnreadableImage, DataError) as error:
            raise RequestError(422, f"the image cannot be read: {error}") from error
        except RunFolderError as error:
            raise RequestError(422, str(error)) from error

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Gives up what takes too long."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                yield
        except TimeoutError as error:
            text = f"there was no answer within {self.limits.seconds:g} s: try again later"
            raise RequestError(503, text, retry_after=5) from error


def _refuse_unreadable(decoded: Sequence[Pixels | str]) -> list[Pixels]:
    """Returns the pixels of images; raises if one of them cannot be read."""
    for number, image in enumerate(decoded, 1):
        if isinstance(image, str):
            name = f"image {number} of {len(decoded)}" if len(decoded) > 1 else "the image"
            raise RequestError(422, f"{name} cannot be read: {image}")
    return [image for image in decoded if not isinstance(image, str)]


def _counted_labels(prediction: Prediction) -> list[str]:
    """Returns the labels that an image counts towards; "" for an image of several labels that has none."""
    if prediction.labels is None:
        return [prediction.label or ""]
    return [name for name, _ in prediction.labels] or [""]


def _decode(image: SentImage, preprocess: Preprocess) -> Pixels | str:
    """Returns the network's pixels of an image, or why it cannot be read."""
    try:
        with refuse_unreadable():
            return read_pixels(decode(image) if isinstance(image, bytes) else image, preprocess)
    except UnreadableImage as error:
        return str(error)


def _explain(image: bytes, model: ServedModel) -> bytes:
    # it loads torch, which exported files do not need
    from tlkit.interpret.attribution import explain

    return png_bytes(explain(model.predictor, decode(image)).overlay())
