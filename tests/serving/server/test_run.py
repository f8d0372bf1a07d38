"""The command, as a process: from its start to its end, with clients that are slow, rude or gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from server_builders import png, until
from serving_builders import write_artifact

from dropclass_deploy.data.images import encode_png

SETTINGS = ["--port", "0", "--set", "drain_delay_s=0.3", "--set", "header_timeout_s=1", "--set", "body_timeout_s=1"]


class Server:
    """A running ``dropclass serve``."""

    def __init__(
        self, process: subprocess.Popen[str], folder: Path, scheme: str, context: ssl.SSLContext | None
    ) -> None:
        self.process, self._folder, self._scheme, self._context = process, folder, scheme, context
        until(lambda: process.poll() is not None or " on http" in self.errors, 60)
        found = re.search(rf" on {scheme}://127\.0\.0\.1:(\d+)", self.errors)
        assert found is not None, self.errors
        self.port = int(found[1])
        until(lambda: self.get("/v2/health/ready")[0] == 200, 60)

    @property
    def errors(self) -> str:
        return (self._folder / "stderr").read_text()

    @property
    def access(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self._folder / "stdout").read_text().splitlines()]

    def get(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self._scheme}://127.0.0.1:{self.port}{path}", body, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (urllib.error.URLError, ConnectionError):
            return 0, b""

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dropclass_deploy", "serve", *map(str, arguments)]


@contextmanager
def serving(
    folder: Path,
    *arguments: object,
    scheme: str = "http",
    context: ssl.SSLContext | None = None,
    link: Path | None = None,
) -> Iterator[Server]:
    artifact = link or write_artifact(folder / "tiny")
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(command(artifact, *SETTINGS, *arguments), stdout=out, stderr=errors, text=True)
        try:
            yield Server(process, folder, scheme, context)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_the_process_has_no_torch(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    text = maps.read_text()
    assert "onnxruntime" in text
    assert "libtorch" not in text
    assert "/torch/" not in text


def test_a_mask_and_its_line_in_the_log(server: Server) -> None:
    status, content = server.get("/v1/segment", png())
    assert (status, content[:4]) == (200, b"\x89PNG")
    until(lambda: any(line["path"] == "/v1/segment" and line["status"] == 200 for line in server.access))


def test_headers_that_trickle_in_are_cut_off_while_others_are_served(server: Server) -> None:
    slow = [server.raw() for _ in range(20)]
    began = time.monotonic()
    for connection in slow:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nX: ")
    while time.monotonic() - began < 0.9:
        for connection in slow:
            connection.sendall(b"a")
        time.sleep(0.1)
    assert server.get("/v1/segment", png())[0] == 200
    for connection in slow:
        # Closed, not answered; a byte that crossed the close makes it a reset.
        with suppress(ConnectionResetError):
            assert connection.recv(100) == b""
        connection.close()
    assert time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_closed(server: Server) -> None:
    with server.raw() as silent:
        began = time.monotonic()
        assert silent.recv(100) == b""
        assert 0.5 < time.monotonic() - began < 5


def test_a_body_that_trickles_in_is_answered_with_408(server: Server) -> None:
    with server.raw() as slow:
        slow.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_clients_that_leave_do_not_matter(server: Server) -> None:
    content = png(200, 200)
    head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content)
    for sent in (head, head + content[: len(content) // 2], head + content):
        for _ in range(5):
            with server.raw() as rude:
                rude.sendall(sent)
    # Their images may still be on their way out of the queue.
    until(lambda: server.get("/v1/segment", png())[0] == 200)
    assert server.process.poll() is None
    assert "Traceback" not in server.errors


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Server, junk: bytes) -> None:
    with server.raw() as rude:
        try:
            rude.sendall(junk)
            answer = rude.recv(1000)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/v2/health/live")[0] == 200


def test_a_term_signal_under_load_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    with serving(tmp_path, "--set", "queue_size=64") as running:
        content, answers = png(300, 300), []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                answers.append(running.get("/v1/segment", content)[0])

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 20)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/v2/health/ready")[0] in (503, 0))
        assert running.process.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join(30)
        served = [line for line in running.access if line["path"] == "/v1/segment"]
    # Every request that reached the server got its mask; later ones found nobody listening.
    assert {line["status"] for line in served} == {200}
    assert len(served) == answers.count(200)
    assert set(answers) <= {200, 0}
    assert "Traceback" not in running.errors


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--set", "drain_delay_s=60") as running:
        running.process.send_signal(signal.SIGINT)
        until(lambda: running.get("/v2/health/ready")[0] == 503)
        assert running.get("/v1/segment", png())[0] == 200
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(15) == 0


def refused(*arguments: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_mistakes_are_one_line_and_exit_code_two(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "tiny")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in refused(artifact, "--port", port)
    (tmp_path / "no.pem").write_text("none")
    pem = ["--tls-cert", tmp_path / "no.pem", "--tls-key", tmp_path / "no.pem"]
    cases: list[tuple[Sequence[object], str]] = [
        ([], "no artifact was named; expected at least one; dropclass serve ARTIFACT"),
        ([tmp_path / "none"], "none"),
        ([artifact, artifact], "the models to serve are tiny, tiny"),
        ([artifact, "--host", "203.0.113.7", "--port", 0], "cannot listen on 203.0.113.7:0"),
        ([artifact, "--runtime", "magic", "--port", 0], "there is no runtime 'magic'"),
        ([artifact, *pem], "are no certificate and key"),
    ]
    for arguments, message in cases:
        assert message in refused(*arguments), arguments


def memory_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc here")
    return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index]


@pytest.mark.parametrize(
    "endless",
    [b"X-A: " + b"a" * 50_000 + b"\r\n", b"a" * 50_000],
    ids=["trailers", "one trailer"],
)
def test_what_follows_a_body_fills_no_memory(server: Server, endless: bytes) -> None:
    before = memory_mib(server)
    with server.raw() as rude, suppress(ConnectionError):
        rude.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ")
        rude.sendall(b"b\r\n" if endless.startswith(b"X-A") else b"")
        for _ in range(2000):
            rude.sendall(endless)
        pytest.fail("100 MB were taken")
    assert memory_mib(server) - before < 20
    until(lambda: server.get("/v1/segment", png())[0] == 200)


def test_a_chunk_extension_without_end_is_cut_off(server: Server) -> None:
    with server.raw() as rude, suppress(ConnectionError):
        rude.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=")
        for _ in range(2000):
            rude.sendall(b"a" * 50_000)
        pytest.fail("100 MB were taken")


def test_pipelined_requests_are_all_answered(server: Server) -> None:
    with server.raw() as piped:
        piped.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 3000 + b"GET /v2 HTTP/1.1\r\nHo")
        piped.sendall(b"st: a\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: piped.recv(1 << 16), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 3001


def test_an_upgrade_with_a_body_is_told_and_one_without_ignored(server: Server) -> None:
    head = b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    with server.raw() as offered:
        offered.sendall(b"POST /v1/segment" + head + b"Content-Length: 3\r\n\r\nabc")
        answer = offered.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"send the request without the header Upgrade" in answer
    with server.raw() as offered:
        offered.sendall(b"GET /v2/health/live" + head + b"\r\n")
        assert offered.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_nobody_takes_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path, "--set", "send_timeout_s=1", "--set", "max_connections=3") as running:
        image = encode_png(np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), dtype=np.uint8))
        stuck = []
        for _ in range(3):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", running.port))
            head = b"POST /v1/segment?format=overlay HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(image)
            connection.sendall(head + image)
            stuck.append(connection)
        # All places are taken: health is answered all the same, and the others when the time is over.
        assert running.get("/v2/health/live")[0] == 200
        until(lambda: running.get("/v2")[0] == 503, 20)
        until(lambda: running.get("/v2")[0] == 200, 30)
        for connection in stuck:
            connection.close()


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "tiny")
    with (tmp_path / "stderr").open("w") as errors:
        process = subprocess.Popen(command(artifact, *SETTINGS), stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            running = Server(process, tmp_path, "http", None)
            # A pipe holds 64 KiB: some 250 lines.
            assert {running.get("/v2/health/live")[0] for _ in range(600)} == {200}
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()


def test_a_link_is_served_under_its_own_name_and_odd_names_are_refused(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "tiny")
    odd = tmp_path / "my model"
    odd.symlink_to(artifact)
    assert "the folder 'my model' cannot be a model's name in a URL" in refused(odd)
    (tmp_path / "stable").symlink_to(artifact)
    with serving(tmp_path / "x", link=tmp_path / "stable") as running:
        assert running.get("/v2/models/stable/ready")[0] == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def test_https_and_a_key(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    (tmp_path / "key.txt").write_text("open sesame\n")
    given = ["--tls-cert", cert, "--tls-key", key, "--api-key-file", tmp_path / "key.txt"]
    with serving(tmp_path, *given, scheme="https", context=ssl.create_default_context(cafile=cert)) as running:
        assert running.get("/v1/segment", png())[0] == 401
        status, content = running.get("/v1/segment", png(), {"X-API-Key": "open sesame"})
        assert (status, content[:4]) == (200, b"\x89PNG")
        with running.raw() as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
        assert "open sesame" not in running.errors + (tmp_path / "stdout").read_text()


def test_limits_are_listed_with_their_reasons() -> None:
    done = subprocess.run(command("--list-settings"), capture_output=True, text=True, timeout=60, check=True)
    assert "max_pixels" in done.stdout
    assert "Stops decompression bombs" in re.sub(r"\s+", " ", done.stdout)
