"""What callers do: single calls and slider sessions, with values drawn as people would set them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from velatura.client.errors import VelaturaError
from velatura.client.loadtest.measured_client import MeasuredClient
from velatura.client.loadtest.plan import Kind, Plan
from velatura.client.regions import Region
from velatura.client.results import DirectionInfo, StyleInfo
from velatura.client.sync_client import Client

_FEATHER_PX = 4


@dataclass(frozen=True)
class Offer:
    """What the server under test can do by name."""

    directions: Sequence[DirectionInfo]
    styles: Sequence[StyleInfo]

    @classmethod
    def of(cls, client: Client, plan: Plan) -> Offer:
        """Ask the server for what the plan's mix needs.

        Raises:
            ValueError: when the server cannot serve the mix.
        """
        edits = bool({Kind.EDIT, Kind.SLIDER} & set(plan.mix))
        offer = cls(
            directions=client.list_directions() if edits else (),
            styles=client.list_styles() if Kind.STYLIZE in plan.mix else (),
        )
        if edits and not offer.directions:
            raise ValueError("the server has no directions; leave edit and slider out of the mix")
        if Kind.STYLIZE in plan.mix and not offer.styles:
            raise ValueError("the server has no styles; leave stylize out of the mix")
        return offer


@dataclass(frozen=True)
class Actions:
    """The actions by kind. `take` gives a picture's bytes, `style_pictures` are styles by example.

    Every action raises the `VelaturaError` of a call that failed.
    """

    plan: Plan
    offer: Offer
    take: Callable[[Random], bytes]
    style_pictures: Sequence[bytes]

    def do(
        self, kind: Kind, client: MeasuredClient, rng: Random, stopping: Callable[[], bool]
    ) -> None:
        """Do one action; `stopping` ends a session early."""
        if kind is Kind.EDIT:
            self._edit(client, rng)
        elif kind is Kind.STYLIZE:
            self._stylize(client, rng)
        elif kind is Kind.SEGMENT:
            client.segment(self.take(rng), with_overlay=rng.random() < 0.25)
        else:
            self._slide(client.within(Kind.SLIDER), rng, stopping)

    def _edit(self, client: MeasuredClient, rng: Random) -> None:
        """One edit of a picture; every other one in the direction's own regions."""
        direction = rng.choice(self.offer.directions)
        strength = direction.default_strength * rng.uniform(0.5, 1.0)
        region = None
        if direction.regions and rng.random() < 0.5:
            region = Region(*direction.regions, feather_px=_FEATHER_PX)
        client.edit_image(self.take(rng), {direction.name: strength}, region=region)

    def _stylize(self, client: MeasuredClient, rng: Random) -> None:
        """A preset three times out of four, else a picture's style."""
        style: str | bytes = rng.choice(self.offer.styles).name
        if rng.random() < 0.25:
            style = rng.choice(self.style_pictures)
        client.stylize(self.take(rng), style, strength=rng.uniform(0.5, 1.0))

    def _slide(self, client: MeasuredClient, rng: Random, stopping: Callable[[], bool]) -> None:
        """Encode once, then drag one direction's slider from one end to the other."""
        picture = self.take(rng)
        token = client.encode(picture).latent_token
        direction = rng.choice(self.offer.directions)
        least, greatest = sorted((direction.min_strength, direction.max_strength))
        failed: VelaturaError | None = None
        for step in range(self.plan.slider_steps):
            time.sleep(rng.uniform(0.5, 1.5) * self.plan.slider_think_s)
            if stopping():
                break
            strength = least + (greatest - least) * step / max(1, self.plan.slider_steps - 1)
            try:
                client.edit_image(picture, {direction.name: strength}, latent_token=token)
            except VelaturaError as error:
                failed = error  # a person drags on
        if failed is not None:
            raise failed
