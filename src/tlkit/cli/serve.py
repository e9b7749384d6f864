"""`tlkit serve`: trained classifiers behind HTTP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import DeviceOption, PhaseOption, RejectOption, UnknownOption

#: Seconds that requests in progress have when the service stops.
STOP_SECONDS = 30


def serve(
    models: Annotated[list[Path], typer.Argument(help="Model folders, run folders or exported .onnx files.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is open to other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="TLKIT_SERVE_TOKEN", help="Clients must send Authorization: Bearer TOKEN."),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Size of a request.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Images that may wait, of all requests.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds within which a request is answered.")] = 30,
    reject_below: RejectOption = None,
    unknown: UnknownOption = True,
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Serve classifiers over HTTP, with a page to try them; Ctrl-C stops."""
    from tlkit.errors import ServingError
    from tlkit.runtime.memory import keep_freed_memory

    try:
        import uvicorn

        from tlkit.serving.app import make_app
        from tlkit.serving.listening import listening
        from tlkit.serving.models import LoadOptions, Models
        from tlkit.serving.service import Service, ServiceLimits
    except ModuleNotFoundError as error:
        raise ServingError(
            f"{error.name} is not installed: pip install 'tlkit[serve]' installs what serve needs"
        ) from error
    keep_freed_memory()
    # it would log what is wrong with each form: the client is told
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    options = LoadOptions(phase=phase, reject_below=reject_below, unknown=unknown, device=device)
    limits = ServiceLimits(round(max_megabytes * 1e6), max_waiting, timeout)
    service = Service(Models(models, options), limits)
    app = make_app(service, token=token, note=lambda text: say(text, stderr=True))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
        )
    )
    with listening(host, port, "take another --port, or 0 for one that is free") as listener:
        address = f"http://{_shown(host)}:{listener.getsockname()[1]}"
        for model in service.models:
            count = len(model.predictor.classes)
            say(f"{model.name}: {model.path}, {count} classes", stderr=True)
        say(f"{address}: a page to try it; {address}/docs: how to call it; Ctrl-C stops")
        server.run(sockets=[listener])


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
