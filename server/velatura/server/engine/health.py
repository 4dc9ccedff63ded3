"""Whether one network can be trusted to answer: failures raise a suspicion, a known-good input
settles it.

Callers can make a run fail (with numbers that overflow, say), so failures alone never take a
network out of service: after a few in a row, or a lost device, the warm-up's input is run, and its
result decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from velatura.server.engine.errors import DeviceFailed, FailureKind

log = logging.getLogger(__name__)


class ModelHealth:
    """Health of one network; `probe` runs a known-good input and raises DeviceFailed where it
    fails.
    """

    def __init__(
        self,
        model: str,
        probe: Callable[[], Awaitable[None]],
        *,
        threshold: int = 3,
        interval_s: float = 5.0,
    ) -> None:
        self._model = model
        self._probe = probe
        self._threshold = threshold
        self._interval_s = interval_s
        self._failures = 0
        self._check: asyncio.Task[None] | None = None
        self.healthy = True

    def succeeded(self) -> None:
        """A run answered. Real work counts as much as a probe."""
        self._failures = 0
        if not self.healthy:
            self._recovered()

    def failed(self, error: DeviceFailed) -> None:
        """A run failed; call it on the event loop."""
        self._failures += 1
        if error.reason is FailureKind.DEVICE_LOST:
            self._lost(error)
        elif self._failures < self._threshold:
            return
        if self._check is None or self._check.done():
            self._check = asyncio.get_running_loop().create_task(self._settle())

    async def close(self) -> None:
        """Stop probing."""
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)

    async def _settle(self) -> None:
        """Probe until the network answers."""
        while True:
            try:
                await self._probe()
            except DeviceFailed as error:
                self._lost(error)
            else:
                self.succeeded()
                return
            await asyncio.sleep(self._interval_s)

    def _lost(self, error: DeviceFailed) -> None:
        if self.healthy:
            log.error("model %s is out of service: %s", self._model, error)
        self.healthy = False

    def _recovered(self) -> None:
        log.warning("model %s is back in service", self._model)
        self.healthy = True
