"""`tlkit serve`: trained classifiers behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import DeviceOption, PhaseOption, PrecisionOption, RejectOption, UnknownOption

if TYPE_CHECKING:
    from tlkit.serving.service import Service


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
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Most images that may wait, over all requests.")
    ] = 256,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a waiting request fails.")
    ] = 30,
    reject_below: RejectOption = None,
    unknown: UnknownOption = True,
    phase: PhaseOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "float32",
) -> None:
    """Serve classifiers over HTTP, with a page to try them; Ctrl-C stops."""
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.serving.serve import serve as serve_models

    def announce(service: Service, address: str) -> None:
        for model in service.models:
            count = len(model.predictor.classes)
            say(f"{model.name}: {model.path}, {count} classes", stderr=True)
        say(f"{address}: a page to try it; {address}/docs: how to call it; Ctrl-C stops")

    serve_models(
        models,
        host=host,
        port=port,
        token=token,
        max_megabytes=max_megabytes,
        max_waiting=max_waiting,
        timeout=timeout,
        reject_below=reject_below,
        unknown=unknown,
        phase=phase,
        device=device,
        precision=precision,
        ready=announce,
        observer=ConsoleObserver(),
    )
