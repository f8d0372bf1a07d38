"""Every limit of the server in one class: name, default, reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, model_validator

MIB = 2**20
ImageFormat = Literal["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ServerSettings(BaseModel):
    """What ``dropclass serve`` may be told; the description of each says why it is what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on. Loopback: nobody else unless asked."
    )
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None, description="Key that every request but the health routes must carry; none: no key. Never logged."
    )
    tls_cert: Path | None = Field(None, description="PEM file of the certificate chain; with tls_key: HTTPS.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")

    max_body_bytes: Count = Field(
        64 * MIB, description="Bytes of a request's body, compressed or not: a raw 4K frame has 25 MB, two fit."
    )
    max_buffered_bytes: Count = Field(
        512 * MIB, description="Bytes of all bodies being held at once: bounds memory whatever the number of clients."
    )
    max_chunks: Count = Field(
        65_536, description="Pieces that a body may arrive in: one-byte chunks cost far more than they carry."
    )
    max_pixels: Count = Field(
        16_777_216,
        description="Pixels of an image, read from its header before decoding: 4096×4096. Stops decompression bombs.",
    )
    formats: tuple[ImageFormat, ...] = Field(
        ("PNG", "JPEG", "WEBP"),
        min_length=1,
        description="Image formats that are decoded: fewer decoders, less to attack.",
    )
    max_images: Count = Field(64, description="Images of one V2 request (its first dimension).")
    max_tensors: Count = Field(16, description="Input or output tensors that one V2 request may name.")
    max_json_bytes: Count = Field(
        4 * MIB, description="Bytes of JSON: while it is parsed nothing else is done. Large images go binary."
    )
    max_json_depth: Count = Field(16, description="Nesting of JSON: a V2 request needs seven.")

    max_batch: Count = Field(4, description="Images of one size that the network runs on together.")
    max_batch_pixels: Count = Field(
        4_194_304, description="Pixels of all images of a batch, 2048×2048: its memory grows with them."
    )
    batch_wait_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="How long an image waits for others of its size; 0: batches form only while the network is busy.",
    )
    queue_size: Count | None = Field(
        None,
        description="Images that may wait for the network, those being decoded included; beyond, 429. "
        "None: max_batch, so that a wait lasts about one run.",
    )
    timeout_s: Seconds = Field(
        30.0, description="From a request's arrival to its result; beyond, 503. A request may ask for less."
    )

    header_timeout_s: Seconds = Field(
        10.0, description="For a request's line and headers to arrive: a slow client holds a connection."
    )
    body_timeout_s: Seconds = Field(30.0, description="For a request's body to arrive.")
    send_timeout_s: Seconds = Field(30.0, description="For a client to take its answer.")
    keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        5, description="For which an idle connection stays open."
    )
    max_connections: Count = Field(256, description="Open connections; beyond, 503.")

    drain_delay_s: float = Field(
        0.5, ge=0, le=600, description="After SIGTERM: not ready, yet still answering, so that a load balancer notices."
    )
    drain_timeout_s: Seconds = Field(30.0, description="After that: for what was accepted to be finished.")
    access_log: StrictBool = Field(True, description="One line of JSON a request, on stdout.")

    @property
    def waiting(self) -> int:
        """Images that may wait for one model's network."""
        return self.max_batch if self.queue_size is None else self.queue_size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        if self.api_key is not None and not self.api_key.get_secret_value():
            raise ValueError("api_key is empty")
        return self
