"""onnxruntime-node, and onnxruntime-web in headless Chromium. Both come from npm; see ``npm``."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt

from portability_engines.npm import node_modules
from portability_engines.outcome import Outcome, one_line

Images = npt.NDArray[np.uint8]

HERE = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_WEB_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}
# What a page needs to be allowed SharedArrayBuffer, and so WebAssembly threads.
_ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


def onnxruntime_node(model: Path, images: Images) -> Outcome:
    """onnxruntime-node on the CPU."""
    modules = node_modules()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "image.bin", Path(folder) / "mask.bin"
        source.write_bytes(images.tobytes())
        shape = [str(size) for size in images.shape]
        command = ["node", str(HERE / "node_runner.mjs"), str(modules), str(model), str(source), str(target), *shape]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "Error" in line] or [f"exit code {done.returncode}"]
            raise RuntimeError(one_line(errors[0]))
        mask = np.frombuffer(target.read_bytes(), np.uint8).reshape(images.shape[:3])
    return Outcome(mask)


def onnxruntime_web(model: Path, images: Images) -> Outcome:
    """onnxruntime-web's WebAssembly backend in headless Chromium, one thread."""
    from playwright.sync_api import sync_playwright

    modules = node_modules()
    browser_path = chromium()
    if browser_path is None:
        raise FileNotFoundError("no chromium is installed")
    with _site(modules, model, images) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        try:
            page = browser.new_page()
            page.goto(f"{address}/page.html")
            encoded = page.evaluate("shape => segment(shape)", list(images.shape))
            note = f"Chromium {browser.version}"
        finally:
            browser.close()
    mask = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(images.shape[:3])
    return Outcome(mask, note)


def chromium() -> str | None:
    """Where a browser is that runs, if there is any: Ubuntu's package is a stub that only names the snap to install."""
    return next((path for name in CHROMIUM if (path := shutil.which(name)) and _runs(path)), None)


def _runs(browser: str) -> bool:
    try:
        return subprocess.run([browser, "--version"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _site(modules: Path, model: Path, images: Images) -> Iterator[str]:
    """Serve the page, the runtime, the model and the image from loopback; yield the address."""
    content = {f"/{name}": modules / "onnxruntime-web" / "dist" / name for name in _WEB_FILES}
    files = {**content, "/page.html": HERE / "page.html", "/model.onnx": model}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = images.tobytes() if self.path == "/image.bin" else None
            if body is None and self.path in files:
                body = files[self.path].read_bytes()
            self.send_response(404 if body is None else 200)
            for key, value in _ISOLATION.items():
                self.send_header(key, value)
            self.send_header("Content-Type", _TYPES.get(Path(self.path).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (as in the base class)
            """Stay silent: the output belongs to the result."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
