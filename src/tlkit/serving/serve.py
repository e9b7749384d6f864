"""Serves trained classifiers over HTTP until they are told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.errors import ServingError
from tlkit.experiment.observer import Observer
from tlkit.utils.sequences import Paths, as_list

if TYPE_CHECKING:
    from tlkit.runtime.devices import Precision
    from tlkit.serving.service import Service


def serve(
    models: Paths,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_megabytes: float = 32,
    max_waiting: int = 256,
    timeout: float = 30,
    reject_below: float | None = None,
    unknown: bool = True,
    phase: str | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    ready: Callable[[Service, str], object] = lambda _service, _address: None,
    observer: Observer | None = None,
) -> None:
    """Serves classifiers over HTTP, with a page to try them, until Ctrl-C or SIGTERM.

    Args:
        models: model folders or run folders.
        host: the address to listen on; 0.0.0.0 is open to other machines.
        port: the port; 0: any that is free.
        token: clients must send ``Authorization: Bearer TOKEN``.
        max_megabytes: size of a request.
        max_waiting: number of images that may wait, of all requests.
        timeout: seconds within which a request is answered.
        reject_below: in place of the threshold that is stored with each model.
        unknown: whether images that belong to none of the classes are labelled "unknown".
        phase: the phase of a run; its last unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        precision: see `tlkit.load`.
        ready: is called with the service and its address as soon as it listens.
        observer: is told when a changed model is taken up.

    Raises:
        RunFolderError: a model cannot be loaded.
        ServingError: the port is taken, or a package is missing.
    """
    try:
        from tlkit.serving.listening import listening
        from tlkit.serving.models import LoadOptions, Models
        from tlkit.serving.server import Server
        from tlkit.serving.service import Service, ServiceLimits
    except ModuleNotFoundError as error:
        raise ServingError(
            f"{error.name} is not installed: pip install 'tlkit[serve]' installs what serve needs"
        ) from error
    # it would log what is wrong with each form: the client is told
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    options = LoadOptions(
        phase=phase, reject_below=reject_below, unknown=unknown, device=device, precision=precision
    )
    limits = ServiceLimits(round(max_megabytes * 1e6), max_waiting, timeout)
    service = Service(Models([Path(model) for model in as_list(models)], options), limits)
    server = Server(service, host=host, port=port, token=token, note=(observer or Observer()).note)
    with listening(host, port, "take another port, or 0 for one that is free") as listener:
        ready(service, _url(host, listener.getsockname()[1]))
        with suppress(KeyboardInterrupt):  # how a service ends
            server.run(sockets=[listener])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
