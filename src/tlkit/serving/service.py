"""Answers requests for predictions: decodes their images, and computes those of several requests together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    """

    def __init__(self, models: Models, limits: ServiceLimits) -> None:
        """Starts its threads; `stop` ends them."""
        self.models = models
        self.limits = limits
        self.metrics = Metrics()
        self._batcher = Batcher(limits.max_waiting, self.metrics.batches.observe)
        self.metrics.waiting.set_function(lambda: self._batcher.waiting)
        # no more decoded images are in memory at once than threads decode
        self._decoders = ThreadPoolExecutor(reader_threads(), "tlkit-decode")
        self._explainer = ThreadPoolExecutor(1, "tlkit-explain")

    def stop(self) -> None:
        """Answers everything that waits, and ends its threads."""
        self._decoders.shutdown()
        self._batcher.stop()
        self._explainer.shutdown()

    async def predict(self, model: ServedModel, images: Sequence[SentImage]) -> list[Prediction]:
        """Predicts images, with the probabilities of all classes.

        Raises:
            RequestError: there are none, one cannot be read, or there is no room or time for them now.
        """
        if not images:
            raise RequestError(422, "the request holds no image")
        predictor, loop = model.predictor, asyncio.get_running_loop()
        self._batcher.reserve(len(images))
        try:
            async with asyncio.timeout(self.limits.seconds):
                decoding = [
                    loop.run_in_executor(self._decoders, _decode, image, predictor.preprocess)
                    for image in images
                ]
                decoded = await asyncio.gather(*decoding)
                pixels = [image for image in decoded if not isinstance(image, str)]
                if len(pixels) < len(decoded):
                    number, reason = next(
                        (number, image) for number, image in enumerate(decoded, 1) if isinstance(image, str)
                    )
                    name = f"image {number} of {len(images)}" if len(images) > 1 else "the image"
                    raise RequestError(422, f"{name} cannot be read: {reason}")
                answers = self._batcher.submit(predictor, pixels)
                predictions = await asyncio.gather(*map(asyncio.wrap_future, answers))
        except TimeoutError as error:
            text = f"there was no answer within {self.limits.seconds:g} s: try again later"
            raise RequestError(503, text, retry_after=5) from error
        finally:
            self._batcher.release(len(images))
        for prediction in predictions:
            for label in _counted_labels(prediction):
                self.metrics.images.labels(model.name, label).inc()
        return predictions

    async def explain(self, model: ServedModel, image: bytes) -> bytes:
        """Returns a heat map over an image as PNG: where the classifier looks.

        Raises:
            RequestError: the image cannot be read, the model is an exported file, or there is no time now.
        """
        work = asyncio.get_running_loop().run_in_executor(self._explainer, _explain, image, model)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await work
        except TimeoutError as error:
            text = f"there was no answer within {self.limits.seconds:g} s: try again later"
            raise RequestError(503, text, retry_after=5) from error
        except (UnreadableImage, DataError) as error:
            raise RequestError(422, f"the image cannot be read: {error}") from error
        except RunFolderError as error:
            raise RequestError(422, str(error)) from error


def _counted_labels(prediction: Prediction) -> list[str]:
    """Returns the labels that an image is counted by; "" where it may have several, and has none."""
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
