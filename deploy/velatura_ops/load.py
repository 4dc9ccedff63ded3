"""A small mixed load with everything in it that a dashboard shows: every RPC, pictures of several
sizes and formats, mistakes of callers, hung-up and hurried ones, and more at once than fits.

For pictures and tests of the dashboards. To find a server's limits, use the load test.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from PIL import Image

from velatura.client import NO_RETRY, AsyncClient, VelaturaError
from velatura_ops.compose import ROOT

IMAGES = ROOT / "examples/images"
TIMEOUT_S = 60.0
Call = Callable[[], Awaitable[object]]


@dataclass
class Tally:
    """What came of the calls, by status code; "CANCELLED" where the caller hung up."""

    codes: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All calls that have ended."""
        return self.codes.total()


def _pictures(pattern: str, size: int) -> list[Image.Image]:
    files = sorted(IMAGES.glob(pattern))
    if not files:
        raise FileNotFoundError(f"there are no images {pattern} in {IMAGES}")
    pictures = []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((size, size))
        pictures.append(picture)
    return pictures


class Mix:
    """Calls of every kind, drawn by weight; the same order for the same seed."""

    def __init__(self, client: AsyncClient, seed: int = 0) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._faces: list[Image.Image] = []
        self._photos: list[Image.Image] = []
        self._directions: list[str] = []
        self._styles: list[str] = []
        self._token = b""

    async def prepare(self) -> None:
        """Learn the server's names, and encode one face for the callers that hold a token."""
        self._faces = _pictures("*.png", 512)
        self._photos = _pictures("*.jpg", 256)
        self._directions = [each.name for each in await self._client.list_directions()]
        self._styles = [each.name for each in await self._client.list_styles()]
        self._token = (await self._client.encode(self._faces[0], timeout=TIMEOUT_S)).latent_token

    def draw(self) -> Call:
        """One call."""
        kinds = self._kinds()
        return self._random.choices([call for _, call in kinds], [weight for weight, _ in kinds])[0]

    def every(self) -> list[Call]:
        """One call of each kind."""
        return [call for _, call in self._kinds()]

    def _kinds(self) -> list[tuple[float, Call]]:
        """Every kind of call with its weight, on pictures and names drawn anew."""
        pick, client = self._random.choice, self._client
        face, photo, style = pick(self._faces), pick(self._photos), pick(self._styles)
        edit = {pick(self._directions): self._random.uniform(-1, 1)}
        return [
            (5, lambda: client.edit_image(face, edit, timeout=TIMEOUT_S)),
            (3, lambda: client.edit_image(face, edit, region="hair", timeout=TIMEOUT_S)),
            (5, lambda: client.edit_image(None, edit, latent_token=self._token)),
            (2, lambda: client.edit_image(face, edit, output="jpeg", timeout=TIMEOUT_S)),
            (2, lambda: client.stylize(photo, style, timeout=TIMEOUT_S)),
            (1, lambda: client.stylize(photo, pick(self._photos), timeout=TIMEOUT_S)),
            (3, lambda: client.segment(face, timeout=TIMEOUT_S)),
            (2, lambda: client.encode(face, timeout=TIMEOUT_S)),
            (2, self._generate),
            (0.4, lambda: client.edit_image(face, {"no-such-direction": 1.0})),
            (0.4, lambda: client.segment(b"this is not an image")),
            (0.4, lambda: client.edit_image(face, edit, timeout=0.004)),
            (0.4, lambda: _hang_up(client.edit_image(face, edit), 0.01)),
        ]

    def hurried(self) -> Call:
        """A call with little time: many at once cannot all be done in it, and are refused."""
        photo, style = self._random.choice(self._photos), self._random.choice(self._styles)
        return lambda: self._client.stylize(photo, style, timeout=0.4)

    def impatient(self) -> Call:
        """A call whose caller hangs up while it waits in a queue."""
        face, direction = self._random.choice(self._faces), self._random.choice(self._directions)
        after_s = self._random.uniform(0.1, 0.4)
        return lambda: _hang_up(self._client.edit_image(face, {direction: 1.0}), after_s)

    async def _generate(self) -> None:
        async for _ in self._client.generate(self._random.randrange(1 << 31), timeout=TIMEOUT_S):
            pass


async def _hang_up(call: Awaitable[object], after_s: float) -> None:
    await asyncio.wait_for(call, after_s)


async def _counted(call: Call, tally: Tally) -> None:
    try:
        await call()
        tally.codes["OK"] += 1
    except VelaturaError as error:
        tally.codes[error.status.name] += 1
    except TimeoutError:
        tally.codes["CANCELLED"] += 1


async def drive(target: str, seconds: float, callers: int = 6, seed: int = 0) -> Tally:
    """Load `target` (host:port) with one call of each kind, then for `seconds` in waves of up to
    `callers`, with a burst of hurried and impatient ones at the top of each; what came of it."""
    tally = Tally()
    async with AsyncClient(target, timeout=TIMEOUT_S, retry=NO_RETRY) as client:
        await client.wait_ready(TIMEOUT_S)
        mix = Mix(client, seed)
        await mix.prepare()
        for call in mix.every():  # however slow the machine, nothing is left out
            await _counted(call, tally)
        begin = time.monotonic()
        wave = max(seconds / 3, 2.0)

        async def caller(number: int) -> None:
            while (now := time.monotonic() - begin) < seconds:
                height = min(1.0, 0.25 + 1.5 * (now % wave) / wave)  # a ramp, then a plateau
                if number < height * callers:
                    await _counted(mix.draw(), tally)
                await asyncio.sleep(0.02)

        async def bursts() -> None:
            while time.monotonic() - begin < seconds:
                await asyncio.sleep(wave * 0.8)
                burst = [mix.hurried() for _ in range(6 * callers)]
                burst += [mix.impatient() for _ in range(3 * callers)]
                await asyncio.gather(*(_counted(call, tally) for call in burst))

        await asyncio.gather(bursts(), *(caller(number) for number in range(callers)))
    return tally
