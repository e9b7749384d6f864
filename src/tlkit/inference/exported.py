"""Exported ONNX files: what their metadata says, and the networks in them, computed by onnxruntime.

An ONNX file is data, not code: operators of others' libraries, files beside it and loops are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from tlkit.data.views import Pixels
from tlkit.errors import RunFolderError
from tlkit.model.description import Calibration, Classes, PreprocessDescription, check_thresholds
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.memory import main_memory
from tlkit.runtime.processors import compute_threads
from tlkit.utils.formatting import first_line
from tlkit.utils.json_files import parse_json
from tlkit.utils.regular_files import check_regular, read_regular

if TYPE_CHECKING:
    import onnx

#: The inputs of the whole graph and of the network alone.
IMAGES, TENSOR = "images", "tensor"
#: The network's outputs; it has the second one where it can tell unknown images.
LOGITS, NOVELTY = "logits", "novelty"
#: The outputs of the whole graph, beside novelty.
ANSWERS = ("probabilities", "label", "unclassified", "unknown")
#: Those where images may have several labels.
MULTILABEL_ANSWERS = ("probabilities", "labels")
#: The metadata entry that has an `ExportDescription`, and the version of its form.
METADATA, FORMAT = "tlkit", 1
SUFFIX = ".onnx"
#: Protocol buffers are no larger.
MAX_BYTES = 2**31
#: Number of images that are computed together: more gain nothing.
BATCH = 32
Key = TypeVar("Key")


class ExportDescription(Calibration):
    """The metadata of an exported ONNX file.

    Attributes:
        format: version of this form.
        input: "images": uint8 RGB ``(B, H, W, 3)``; "tensor": normalised images, for the network alone.
        classes: class names in the order of logits and probabilities.
        preprocess: the preprocessing that images need.
        unknown_above: the novelty above which an image is unknown; None: it is not computed.
        precision: "int8": weights and activations of most layers are 8-bit integers.
        versions: of the libraries that it was made with; Pillow's decides how images are resized.
    """

    format: int
    input: Literal["images", "tensor"]
    classes: Classes
    preprocess: PreprocessDescription
    unknown_above: float | None = None
    precision: Literal["float32", "int8"] = "float32"
    versions: dict[str, str]

    @model_validator(mode="after")
    def _has_thresholds_for_its_classes(self) -> Self:
        check_thresholds(self, self.classes)
        return self


@dataclass(frozen=True)
class ExportedDetector:
    """The detector of unknown images inside an exported network.

    Attributes:
        threshold: the novelty above which an image is unknown.
    """

    threshold: float


class OnnxNetwork:
    """The network of an exported ONNX file, on the CPU; torch is not needed.

    Attributes:
        detector: tells which images are unknown; None: novelty is not computed.
        batch: number of images to compute together.
    """

    batch = BATCH

    def __init__(self, content: bytes, preprocess: Preprocess, unknown_above: float | None) -> None:
        """Prepares a network.

        Args:
            content: an ONNX file's, that takes `TENSOR`, and gives novelty with a threshold only.
            preprocess: its images' preprocessing.
            unknown_above: the threshold.
        """
        import onnxruntime

        self.detector = None if unknown_above is None else ExportedDetector(unknown_above)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = compute_threads()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._preprocess = preprocess

    def predict(
        self, batches: Iterable[tuple[Key, Sequence[Pixels]]]
    ) -> Iterator[tuple[Key, tuple[NDArray[np.float32], ...]]]:
        """Computes logits ``(B, classes)`` and perhaps novelty ``(B,)``; see `TorchNetwork.predict`."""
        for key, pixels in batches:
            yield key, self.run(normalize(np.stack(pixels), self._preprocess)) if pixels else ()

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Maps normalised images ``(B, 3, size, size)`` to logits and perhaps novelty."""
        return tuple(self._session.run(None, {TENSOR: images}))


def normalize(pixels: Pixels, preprocess: Preprocess) -> NDArray[np.float32]:
    """Normalises uint8 RGB ``(B, H, W, 3)`` to ``(B, 3, H, W)``, to the bits of `tlkit.data.loader`."""
    mean, std = (
        np.array(values, np.float32).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    images /= 255
    images -= mean
    images /= std
    return images


@dataclass(frozen=True)
class Exported:
    """An exported ONNX file's content."""

    network: OnnxNetwork
    description: ExportDescription


def read_exported(path: Path, *, unknown: bool = True) -> Exported:
    """Reads an ONNX file that `tlkit export` wrote, for images of any size or for the network alone.

    Of a file for images of any size, the network is taken out, since Pillow resizes images of different sizes
    that are computed together.

    Args:
        path: the file.
        unknown: whether the network tells unknown images, where it can.

    Raises:
        RunFolderError: it cannot be read, or tlkit did not write it.
    """
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        raise RunFolderError(f"{path} takes {' and '.join(missing)}: pip install 'tlkit[onnx]'")
    try:
        needed, free = 2 * check_regular(path), main_memory().free
        if needed > free:
            raise RunFolderError(f"{path} needs {needed:,} bytes of memory, of which {free:,} are free")
        model = _parse(path, read_regular(path, MAX_BYTES))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
    description = _description(path, model)
    threshold = description.unknown_above if unknown else None
    outputs = [LOGITS] if threshold is None else [LOGITS, NOVELTY]
    try:
        preprocess = description.preprocess.to_preprocess()
        network = OnnxNetwork(_extract(model, outputs).SerializeToString(), preprocess, threshold)
        blank = np.zeros((1, 3, preprocess.size, preprocess.size), np.float32)
        shapes = [output.shape for output in network.run(blank)]
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise RunFolderError(f"{path} cannot be computed: {first_line(error)}") from error
    expected = [(1, len(description.classes)), (1,)][: len(outputs)]
    if shapes != expected:
        raise RunFolderError(f"{path}: its network gives {shapes}; its {METADATA!r} metadata need {expected}")
    return Exported(network, description)


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's, which onnx does not hand on
        raise RunFolderError(f"{path} is not an ONNX file: {first_line(error)}") from error


def _description(path: Path, model: onnx.ModelProto) -> ExportDescription:
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA not in texts:
        raise RunFolderError(
            f"{path} was not written by tlkit: it has no {METADATA!r} metadata, so that classes and "
            "preprocessing are not known; tlkit export writes such a file"
        )
    where = f"{path}: metadata {METADATA!r}"
    description = parse_json(texts[METADATA], ExportDescription, RunFolderError, where)
    if description.format > FORMAT:
        raise RunFolderError(f"{path} was made by a newer tlkit than this one: update tlkit")
    return description


def _extract(model: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """Returns the network alone.

    Raises:
        ValueError: it is not there, or has what no network that tlkit exports has.
    """
    import onnx

    network = onnx.utils.Extractor(model).extract_model([TENSOR], outputs)
    nodes, kinds = network.graph.node, onnx.AttributeProto
    if model.functions or any(node.domain not in ("", "ai.onnx") for node in nodes):
        raise ValueError("it has operators that are not ONNX's own")
    attributes = [(node.op_type, attribute) for node in nodes for attribute in node.attribute]
    plain = {kinds.FLOAT, kinds.FLOATS, kinds.INT, kinds.INTS, kinds.STRING, kinds.STRINGS, kinds.TENSOR}
    if other := sorted({name for name, attribute in attributes if attribute.type not in plain}):
        raise ValueError(f"it has {', '.join(other)}, which no network that tlkit exports has")
    tensors = [*network.graph.initializer, *(attribute.t for _, attribute in attributes)]
    if any(tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data for tensor in tensors):
        raise ValueError("a part of it is in another file")
    return network
