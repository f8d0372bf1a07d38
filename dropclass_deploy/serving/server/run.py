"""The process: uvicorn around the application, and an end in which nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import uvicorn

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data.images import read_image
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.segmenter import Segmenter
from dropclass_deploy.serving.server.app import create_app
from dropclass_deploy.serving.server.connections import ConnectionLimits, guarded
from dropclass_deploy.serving.server.hosting import NAME, HostedModel, Image
from dropclass_deploy.serving.server.logs import logging_beside
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.shedding import Shedding
from dropclass_deploy.serving.server.state import ServerState

SAMPLE = "sample/image.png"
log = logging.getLogger("dropclass_deploy.server")


def host_artifact(
    path: Path,
    settings: ServerSettings,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    head: str | None = None,
) -> HostedModel:
    """An artifact as a model of its folder's name; the rest as for ``Segmenter.load``.

    Raises:
        ArtifactError: as ``open_artifact``.
    """
    artifact = open_artifact(path)
    # A link's own name, not that of what it leads to.
    name = Path(os.path.abspath(path)).name  # noqa: PTH100 (Path.resolve follows links)
    if NAME.fullmatch(name) is None:
        raise UserError(
            f"the folder {name!r} cannot be a model's name in a URL",
            expected="letters, digits, '.', '_' and '-', the first one a letter or digit, 128 at most",
            remedy="rename it, or serve a link to it that has such a name",
        )

    def opener() -> Segmenter:
        return Segmenter.load(path, runtime, threads, precision=precision, head=head)

    return HostedModel(name, opener, settings, _sample(artifact))


def _sample(artifact: Artifact) -> Image | None:
    if SAMPLE not in artifact.manifest.files:
        return None
    return read_image(artifact.folder / SAMPLE, artifact.preprocess.value_range)


def run(models: Sequence[HostedModel], settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT: then not ready, then no new connections, then the end of what was accepted.

    Says ``serving NAMES on URL`` on stderr once it listens.

    Raises:
        UserError: when the address or the TLS files cannot be used, or a network cannot be opened at the start.
    """
    _check_tls(settings)
    app = create_app(models, settings)
    state: ServerState = app.state.server
    configuration = uvicorn.Config(
        app,
        loop="asyncio",
        http=guarded(
            ConnectionLimits(
                settings.header_timeout_s, settings.send_timeout_s, settings.max_connections, Shedding(state)
            )
        ),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever sits before the server is known to the operator, not to us: no header is believed.
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    with logging_beside(), _listening(settings) as listener:
        server = _Server(configuration, state)
        port = listener.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "http" if settings.tls_cert is None else "https"
        sys.stderr.write(f"serving {', '.join(state.models)} on {scheme}://{host}:{port}\n")
        sys.stderr.flush()
        server.run(sockets=[listener])
    if state.failure is not None:
        raise state.failure


class _Server(uvicorn.Server):
    """uvicorn's server, which first says that it is not ready and then stops listening."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config)
        self._state = state
        state.give_up = self._stop
        state.opened, state.abandon = _settle, _abandon

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; another one ends at once."""
        del sig, frame
        if self._state.draining:
            _leave()
        self._state.draining = True
        log.warning("draining: not ready, %g s until no connection is taken", self._state.settings.drain_delay_s)
        asyncio.get_running_loop().call_later(self._state.settings.drain_delay_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def _abandon() -> None:
    log.error("a network does not return; leaving it")
    _leave()


def _leave() -> None:
    """End the process whatever its threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _settle() -> None:
    """What the start has made stays: looking through all of it again and again would stop every request for some 50 ms."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    where = f"{settings.host}:{settings.port}"
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # The protocol's number is what lets asyncio switch Nagle's algorithm off: without, small answers wait 40 ms.
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
            undo.pop_all()
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number is not None and number > 0 else "no such address"
        raise UserError(
            f"cannot listen on {where} ({reason})",
            expected="an address of this machine and a free port",
            remedy="choose another one with --host and --port",
        ) from error
    with contextlib.closing(listener):
        yield listener


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=_no_password
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and key ({error.strerror or error})"
            if isinstance(error, OSError)
            else f"{settings.tls_key} cannot be used ({error})",
            expected="two PEM files that belong together, the key without a password",
        ) from error


def _no_password() -> str:
    """Asked for by an encrypted key; OpenSSL would ask the terminal."""
    raise ValueError("the key has a password")
