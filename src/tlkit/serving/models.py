"""The classifiers that are served, and their replacement when their folders change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.errors import RunFolderError, TlkitError, close_matches
from tlkit.experiment.run_folder import RunFolder
from tlkit.inference.loading import find_model, load
from tlkit.inference.predictor import Predictor
from tlkit.plugins.loader import load_registry
from tlkit.serving.errors import RequestError

if TYPE_CHECKING:
    from tlkit.runtime.devices import Precision

#: Seconds between two looks at the model folders; what changes between them is still being copied.
RELOAD_INTERVAL = 2.0

#: Name, inode, size and time of each file of a model folder.
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded; see `tlkit.load`."""

    phase: str | None = None
    reject_below: float | None = None
    unknown: bool = True
    device: str | None = None
    precision: Precision = "float32"


class ServedModel:
    """A classifier that follows its folder.

    Attributes:
        name: what clients call it.
        path: the model folder or run folder.
        predictor: the classifier; another one after its folder has been replaced.
    """

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        """Loads the model.

        Raises:
            RunFolderError: it cannot be loaded.
        """
        self.name = name
        self.path = path
        self._options = options
        self._registry = load_registry()
        self._loaded = self._seen = self._look()
        self.predictor = self._load()

    def _look(self) -> Signature:
        return _signature(find_model(self.path, self._options.phase))

    def _load(self) -> Predictor:
        options = self._options
        return load(
            self.path,
            phase=options.phase,
            reject_below=options.reject_below,
            unknown=options.unknown,
            device=options.device,
            precision=options.precision,
            registry=self._registry,
        )

    def refresh(self) -> str | None:
        """Loads the model again if its folder has changed; one that cannot be loaded leaves the old one.

        A folder is loaded once its files are as they were at the last call, since copying takes a while. The
        checksums in a model folder make sure that its files belong together; timm's folders have none.

        Returns:
            What happened, or None.
        """
        try:
            signature = self._look()
        except (TlkitError, OSError):
            return None  # it is just being replaced
        unchanged, self._seen = signature == self._seen, signature
        if signature == self._loaded or not unchanged:
            return None
        self._loaded = signature
        try:
            predictor = self._load()
            if self._look() != signature:
                return None  # replaced meanwhile: the next calls see that
        except Exception as error:  # whatever it is, the next replacement must be taken up
            reason = str(error) if isinstance(error, TlkitError) else f"{type(error).__name__}: {error}"
            return f"{self.name}: the changed model is not taken up: {reason}"
        self.predictor = predictor
        return f"{self.name}: the changed model is served from now on"


class Models:
    """All served classifiers, by name; the first is the one for requests that name none."""

    def __init__(self, paths: Sequence[Path], options: LoadOptions) -> None:
        """Loads them all.

        Raises:
            RunFolderError: one cannot be loaded, or two would have the same name.
        """
        names = distinct_names(paths)
        self._models = {
            name: ServedModel(name, path, options) for name, path in zip(names, paths, strict=True)
        }

    def __iter__(self) -> Iterator[ServedModel]:
        """Yields the models in order."""
        return iter(self._models.values())

    @property
    def by_name(self) -> Mapping[str, ServedModel]:
        """The models by name."""
        return self._models

    def get(self, name: str | None) -> ServedModel:
        """Returns a model, the first one without a name.

        Raises:
            RequestError: there is none of that name.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            hint = close_matches(name, self._models) or f"; there are {', '.join(self._models)}"
            raise RequestError(404, f"there is no model {name!r}{hint}")
        return self._models[name]

    def follow(self, note: Callable[[str], object], stopping: threading.Event) -> None:
        """Takes up changed models until `stopping` is set; runs in a thread of its own."""
        while not stopping.wait(RELOAD_INTERVAL):
            for model in self._models.values():
                if text := model.refresh():
                    note(text)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns a name for each model: the recipe's for a run, otherwise the folder's or the file's.

    Raises:
        RunFolderError: two have the same.
    """
    names = [_name(path) for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RunFolderError(
            f"two models are called {min(twice)}: give each a name of its own, or serve them separately"
        )
    return names


def _name(path: Path) -> str:
    if (path / "recipe.toml").is_file():
        results = RunFolder(path).results()
        if results is not None:
            return results.recipe
    return path.resolve().stem if path.is_file() else path.resolve().name


def _signature(model: Path) -> Signature:
    return tuple(
        (file.name, status.st_ino, status.st_size, status.st_mtime_ns)
        for file in (sorted(model.iterdir()) if model.is_dir() else [model])
        if file.is_file() and (status := file.stat())
    )
