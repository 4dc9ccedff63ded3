"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import grpc

from velatura.client import channel, requests, results
from velatura.client.channel import (
    DEFAULT_TIMEOUT_S,
    MAX_MESSAGE_BYTES,
    UNSET,
    Keepalive,
    Options,
    Retry,
    Timeout,
    Tls,
)
from velatura.client.edits import EditsInput, Layers, StylesInput
from velatura.client.errors import DeadlineExceeded, Unavailable, VelaturaError, error_of
from velatura.client.images import Format, ImageInput, Upload
from velatura.client.regions import Box, RegionInput
from velatura.client.requests import Operation, Response, Result


class Client:
    """Calls a Velatura server and waits for the answer.

    Args:
        target: Address of the server, "host:port" or any other gRPC target.
        timeout: Deadline of each call in seconds, unless the call gives its own; None for none.
        api_key: Sent as `authorization: Bearer …` with every call.
        tls: True for the system's roots, or a `Tls`; plain text when False.
        retry: When calls are sent again; see `Retry`. `NO_RETRY` turns it off.
        keepalive: HTTP/2 pings; off when None.
        max_message_bytes: Limit of requests and of answers.
        metadata: More metadata for every call.
        upload: How PIL images travel: "png" (small), or "raw" (no time spent on coding; for fast
            links).

    Every call raises a `VelaturaError` of the class that its status has. Every call can be made
    from any thread.
    """

    def __init__(
        self,
        target: str = "localhost:8500",
        *,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        api_key: str | None = None,
        tls: Tls | bool = False,
        retry: Retry = Retry(),  # noqa: B008  frozen
        keepalive: Keepalive | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        metadata: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        upload: Upload = "png",
    ) -> None:
        self._settings = channel.settings(
            target=target,
            timeout=timeout,
            api_key=api_key,
            tls=tls,
            retry=retry,
            keepalive=keepalive,
            max_message_bytes=max_message_bytes,
            metadata=metadata,
        )
        self._upload = upload
        options = self._channel_options()
        if self._settings.tls is not None:
            self._channel = grpc.secure_channel(
                target, self._settings.tls.credentials(), options=options
            )
        else:
            self._channel = grpc.insecure_channel(target, options=options)

    def __repr__(self) -> str:
        return f"Client({self._settings.target!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def edit_image(
        self,
        image: ImageInput | None = None,
        edits: EditsInput = (),
        *,
        region: RegionInput | None = None,
        latent_token: bytes | None = None,
        frame: Box | Sequence[int] | None = None,
        generator: str = "",
        segmenter: str = "",
        output: Format | None = None,
        quality: int | None = None,
        lossless: bool = False,
        timeout: Timeout = UNSET,
    ) -> results.EditResult:
        """Apply `edits` to `image`, inside `region` only.

        Args:
            image: PIL image, path, or bytes of a file. Without it, `latent_token` alone is decoded.
            edits: `{"smile": 1.0}`, or a list of `Direction`, `Offset`, `Reference` and names.
            region: Where the image may change: class names, box, mask or `Region`; everywhere if
                None.
            latent_token: The image's latents from `encode`, to spare the encoder's pass.
            frame: Square part (x, y, width, height) that the generator sees; the central one if
                None.
            generator: Generator to use; the server's default when empty.
            segmenter: Segmenter for the region; the server's default when empty.
            output: Format of the answer; the input's own when None (PNG for PIL images).
            quality: Of JPEG and lossy WebP, 1..100.
            lossless: Code WebP without loss.
        """
        return self._call(
            requests.edit_image(
                image,
                edits,
                region=region,
                latent_token=latent_token,
                frame=frame,
                generator=generator,
                segmenter=segmenter,
                output=output,
                quality=quality,
                lossless=lossless,
                upload=self._upload,
            ),
            timeout,
        )

    def encode(
        self,
        image: ImageInput,
        *,
        with_reconstruction: bool = False,
        frame: Box | Sequence[int] | None = None,
        generator: str = "",
        output: Format | None = None,
        timeout: Timeout = UNSET,
    ) -> results.EncodeResult:
        """Find the image's latents; the token spares later edits the encoder's pass."""
        return self._call(
            requests.encode(
                image,
                with_reconstruction=with_reconstruction,
                frame=frame,
                generator=generator,
                output=output,
                upload=self._upload,
            ),
            timeout,
        )

    def stylize(
        self,
        image: ImageInput,
        styles: StylesInput,
        *,
        strength: float = 1.0,
        preserve_color: bool = False,
        region: RegionInput | None = None,
        model: str = "",
        segmenter: str = "",
        output: Format | None = None,
        quality: int | None = None,
        lossless: bool = False,
        timeout: Timeout = UNSET,
    ) -> results.StylizeResult:
        """Paint `image` in one or several styles, inside `region` only.

        Args:
            image: PIL image, path, or bytes of a file, of any size up to the server's limit.
            styles: A preset's name, a picture (PIL image, `pathlib.Path` or bytes), or several: a
                list, `[(style, weight), …]`, or `{style: weight}`.
            strength: 0 returns the image untouched, 1 is the full style.
            preserve_color: Keep the image's colours.
            region: Where the image may change; everywhere if None.
            model: Style model to use; chosen by the server when empty.
            segmenter: Segmenter for the region; the server's default when empty.
            output: Format of the answer; the input's own when None (PNG for PIL images).
            quality: Of JPEG and lossy WebP, 1..100.
            lossless: Code WebP without loss.
        """
        return self._call(
            requests.stylize(
                image,
                styles,
                strength=strength,
                preserve_color=preserve_color,
                region=region,
                model=model,
                segmenter=segmenter,
                output=output,
                quality=quality,
                lossless=lossless,
                upload=self._upload,
            ),
            timeout,
        )

    def segment(
        self,
        image: ImageInput,
        *,
        with_overlay: bool = False,
        model: str = "",
        output: Format | None = None,
        timeout: Timeout = UNSET,
    ) -> results.SegmentResult:
        """Give every pixel a class; `output` is the overlay's format."""
        return self._call(
            requests.segment(
                image, with_overlay=with_overlay, model=model, output=output, upload=self._upload
            ),
            timeout,
        )

    def generate(
        self,
        seeds: int | Iterable[int],
        *,
        truncation_psi: float | None = None,
        edits: EditsInput | None = None,
        mix_seed: int | None = None,
        mix_layers: Layers | None = None,
        class_name: str = "",
        generator: str = "",
        output: Format | None = None,
        quality: int | None = None,
        timeout: Timeout = UNSET,
    ) -> Iterator[results.Sample]:
        """Sample the generator: one image for each seed, each as soon as it is done, in order.

        Leaving the loop early cancels the rest. The deadline counts for all images together.

        Args:
            seeds: One or several; the same seed, psi and model give the same image.
            truncation_psi: 1 for full variety, 0 for typical samples; 0.7 if None.
            edits: Applied to every sample.
            mix_seed: Seed of a second latent that gives its layers `mix_layers` (start, end).
            mix_layers: 0..4 is coarse (shape), 4..8 middle, 8.. fine (colour).
            class_name: Class to sample, for class-conditional generators.
            generator: Generator to use; the server's default when empty.
            output: Format of the images; PNG when None.
            quality: Of JPEG and lossy WebP, 1..100.
        """
        operation = requests.generate(
            seeds,
            truncation_psi=truncation_psi,
            edits=edits,
            mix_seed=mix_seed,
            mix_layers=mix_layers,
            class_name=class_name,
            generator=generator,
            output=output,
            quality=quality,
            upload=self._upload,
        )
        requests.check_size(operation, self._settings.max_message_bytes)
        return self._stream(operation, timeout)

    def list_models(self, *, timeout: Timeout = UNSET) -> results.Catalog:
        """The server's bundle: networks, generators, versions, hashes."""
        return self._call(requests.list_models(), timeout)

    def list_directions(
        self, generator: str = "", *, timeout: Timeout = UNSET
    ) -> tuple[results.DirectionInfo, ...]:
        """The directions that edits may name."""
        return self._call(requests.list_directions(generator), timeout)

    def list_styles(self, *, timeout: Timeout = UNSET) -> tuple[results.StyleInfo, ...]:
        """The presets that `stylize` may name."""
        return self._call(requests.list_styles(), timeout)

    def list_region_classes(
        self, segmenter: str = "", *, timeout: Timeout = UNSET
    ) -> tuple[results.RegionClass, ...]:
        """The classes that regions may name."""
        return self._call(requests.list_region_classes(segmenter), timeout)

    def health(self, service: str = "", *, timeout: Timeout = UNSET) -> results.HealthStatus:
        """State of one service, or of the whole server when `service` is empty."""
        try:
            return self._call(requests.health(service), timeout)
        except VelaturaError as error:
            if error.status is grpc.StatusCode.NOT_FOUND:
                return results.HealthStatus.SERVICE_UNKNOWN
            raise

    def wait_ready(self, timeout: float = 60.0, *, service: str = "") -> None:
        """Return as soon as the server is serving.

        Raises:
            DeadlineExceeded: when it is not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        seen = "no answer"
        while (left := end - time.monotonic()) > 0:
            try:
                seen = self.health(service, timeout=min(left, 2.0))
            except (Unavailable, DeadlineExceeded) as error:
                seen = str(error)
            if seen == results.HealthStatus.SERVING:
                return
            time.sleep(0.1)
        raise DeadlineExceeded(
            f"{self._settings.target} was not ready within {timeout:g} s; last seen: {seen}"
        )

    def _channel_options(self) -> Options:
        return self._settings.channel_options()

    def _call(self, operation: Operation[Response, Result], timeout: Timeout) -> Result:
        requests.check_size(operation, self._settings.max_message_bytes)
        send = self._channel.unary_unary(
            operation.method,
            request_serializer=type(operation.request).SerializeToString,
            response_deserializer=operation.response_type.FromString,
        )
        try:
            response = send(
                operation.request,
                timeout=self._deadline(timeout),
                metadata=self._settings.call_metadata(),
            )
        except grpc.RpcError as error:
            raise _typed(error) from error
        return operation.parse(response)

    def _stream(self, operation: Operation[Response, Result], timeout: Timeout) -> Iterator[Result]:
        send = self._channel.unary_stream(
            operation.method,
            request_serializer=type(operation.request).SerializeToString,
            response_deserializer=operation.response_type.FromString,
        )
        call = send(
            operation.request,
            timeout=self._deadline(timeout),
            metadata=self._settings.call_metadata(),
        )
        try:
            for response in call:
                yield operation.parse(response)
        except grpc.RpcError as error:
            raise _typed(error) from error
        finally:
            call.cancel()  # does nothing to a call that has ended

    def _deadline(self, timeout: Timeout) -> float | None:
        return self._settings.timeout if timeout is UNSET else timeout


def _typed(error: grpc.RpcError) -> VelaturaError:
    # What the blocking API raises is always a Call as well.
    assert isinstance(error, grpc.Call)  # noqa: S101
    return error_of(error.code(), error.details() or "", error.trailing_metadata())
