"""``dropclass serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import print_table
from dropclass_deploy.cli.options import AnyMaskHead, AnyPrecision, Runtime, Threads
from dropclass_deploy.core.errors import MissingExtraError, UserError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: dropclass serve artifacts/camvid --port 8000, then "
        "curl --data-binary @street.png 'http://127.0.0.1:8000/v1/segment' -o mask.png. Routes: docs/serving.md."
    )(serve)


def serve(
    artifacts: Annotated[
        list[Path] | None, typer.Argument(metavar="ARTIFACT...", help="Artifact folders; each is a model of its name.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; default 8000, 0 takes a free one.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="Its first line is the API key; or DROPCLASS_API_KEY is.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file of the certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its private key.")] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A limit; --list-settings names them.")
    ] = None,
    runtime: Runtime = "auto",
    threads: Threads = None,
    precision: AnyPrecision = None,
    head: AnyMaskHead = None,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="Print every limit with its default and reason.")
    ] = False,
) -> None:
    """Serve artifacts over HTTP: /v1/segment, the Open Inference Protocol V2, health, metrics, /docs."""
    try:
        from dropclass_deploy.serving.server.run import host_artifact, run
        from dropclass_deploy.serving.server.settings_given import described, settings_from
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    if list_settings:
        print_table("settings of dropclass serve (--set NAME=VALUE)", ["name", "default", "why"], described())
        return
    if not artifacts:
        raise UserError("no artifact was named", expected="ARTIFACT...", remedy="dropclass serve ARTIFACT")
    named = {"host": host, "port": port, "tls_cert": tls_cert, "tls_key": tls_key}
    settings = settings_from(pairs or [], named, api_key_file)
    models = [
        host_artifact(path, settings, runtime=runtime, threads=threads, precision=precision, head=head)
        for path in artifacts
    ]
    try:
        run(models, settings)
    finally:
        for model in models:
            model.close()
