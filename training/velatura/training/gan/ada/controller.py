"""Sets the augmentation's strength by how much the discriminator overfits.

The measure is r_t = E[sign D(x)] over real images: 0 where the discriminator cannot tell them
apart, 1 where it is sure of every one. Above the target p rises, below it p falls.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class AdaController:
    """Moves p by ±(images seen)/(1000 · kimg) every `interval` steps.

    So p takes `kimg` thousand images from 0 to 1. `limit` is the largest p: 0.8, up to which every
    augmentation is leak-free. Raises ValueError that names the setting out of range.
    """

    def __init__(
        self,
        target: float = 0.6,
        kimg: float = 100.0,
        interval: int = 4,
        limit: float = 0.8,
        p: float = 0.0,
    ) -> None:
        if not -1 < target < 1:
            raise ValueError(f"target: {target}; r_t lies within (-1, 1), 0.6 is usual")
        if kimg <= 0:
            raise ValueError(f"kimg: {kimg}; thousands of images for p from 0 to 1, above 0")
        if interval < 1:
            raise ValueError(f"interval: {interval}; steps between moves of p, 1 or more")
        if not 0 <= limit <= 1:
            raise ValueError(f"limit: {limit}; p is a probability, 0 to 1")
        if not 0 <= p <= limit:
            raise ValueError(f"p: {p}; it must lie in 0 to the limit, {limit}")
        self.target, self.kimg, self.interval, self.limit = target, kimg, interval, limit
        self.p = p
        self.r_t = 0.0  # of the last whole interval
        self._signs = 0.0
        self._images = 0
        self._steps = 0

    def observe(self, real_logits: Tensor) -> None:
        """Take in one step's logits [N] of augmented real images; every `interval` steps p moves.

        For an objective whose logits have no zero (Wasserstein) subtract the boundary first.
        """
        self._signs += float(real_logits.detach().sign().sum())
        self._images += real_logits.numel()
        self._steps += 1
        if self._steps < self.interval:
            return
        self.r_t = self._signs / self._images
        step = self._images / (1000 * self.kimg)
        direction = (self.r_t > self.target) - (self.r_t < self.target)
        self.p = min(max(self.p + direction * step, 0.0), self.limit)
        self._signs, self._images, self._steps = 0.0, 0, 0

    def state(self) -> dict[str, float]:
        """Everything a resumed run needs to go on as if it had not stopped."""
        return {
            "p": self.p,
            "r_t": self.r_t,
            "signs": self._signs,
            "images": self._images,
            "steps": self._steps,
        }

    def restore(self, state: Mapping[str, float]) -> None:
        self.p, self.r_t, self._signs = state["p"], state["r_t"], state["signs"]
        self._images, self._steps = int(state["images"]), int(state["steps"])
