"""The requests that are sent, as bytes made beforehand: tensors for the raw path, pictures for the
pipelines.

Pictures come from the server's own Generate. Where a workload wants distinct images, every request
has its own: a few pixels bear its number, so that no cache knows it, whatever the cache hashes.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference import open_inference_pb2 as oip
from velatura.client import AsyncClient
from velatura.v1 import edit_pb2, image_pb2, region_pb2, segment_pb2, stylize_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"
EDIT = "/velatura.v1.EditService/EditImage"
STYLIZE = "/velatura.v1.StyleService/Stylize"
SEGMENT = "/velatura.v1.SegmentService/Segment"
PHOTO = 256  # side of the stylised pictures
FACES = 16
Request = Callable[[], bytes]


@dataclass(frozen=True)
class Workload:
    """A method, and what makes its next request."""

    name: str
    path: str
    request: Request
    extent: int = PHOTO  # of the networks' free axes in these requests


def tensor_request(model: str, inputs: dict[str, NDArray[np.float32]]) -> bytes:
    """ModelInfer on float32 arrays, each raw."""
    request = oip.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.astype("<f4").tobytes())
    return request.SerializeToString()


def latents(model: str, layers: int, width: int, count: int = 64) -> Request:
    """Requests with one w_plus each, float32 [1, layers, width], `count` of them in turn."""
    rng = np.random.default_rng(0)
    made = [
        tensor_request(
            model, {"w_plus": rng.standard_normal((1, layers, width)).astype(np.float32)}
        )
        for _ in range(count)
    ]
    return itertools.cycle(made).__next__


class Pictures:
    """Numbered variants of a few pictures; every one that is handed out is new."""

    def __init__(self, pictures: Sequence[Image.Image]) -> None:
        self._rgb = [np.asarray(picture.convert("RGB")) for picture in pictures]
        self._numbers = itertools.count(1)

    def next(self) -> image_pb2.Image:
        """A picture that has not been sent yet, as PNG."""
        number = next(self._numbers)
        rgb = self._rgb[number % len(self._rgb)].copy()
        # The number's bits as blocks of 8×8 pixels at the top: a shrinking to a network's size
        # leaves them distinct.
        for bit in range(24):
            y, x = bit // 8 * 8, bit % 8 * 8
            rgb[y : y + 8, x : x + 8] ^= np.uint8((number >> bit & 1) << 2)
        return image_pb2.Image(encoded=png(Image.fromarray(rgb)))


def png(picture: Image.Image) -> bytes:
    """As a file, quickly rather than small."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


class Pool:
    """Requests made beforehand, never the same twice; made on the spot only when they run out."""

    def __init__(self, make: Request) -> None:
        self._make = make
        self._ready: list[bytes] = []

    def fill(self, count: int) -> None:
        """Have at least so many ready."""
        while len(self._ready) < count:
            self._ready.append(self._make())

    def __call__(self) -> bytes:
        return self._ready.pop() if self._ready else self._make()


async def workloads(address: str) -> list[Workload]:
    """Every workload of the pipelines, on pictures that the server at `address` generates."""
    async with AsyncClient(address, timeout=120) as client:
        await client.wait_ready(120)
        faces = [sample.image async for sample in client.generate(range(1, FACES + 1))]
        directions = await client.list_directions()
        style = (await client.list_styles())[0].name
        token = (await client.encode(faces[0])).latent_token
        known = next((d for d in directions if d.regions), None)
    photos = [face.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC) for face in faces]
    new_face, new_photo = Pictures(faces).next, Pictures(photos).next
    one = image_pb2.Image(encoded=png(faces[0]))
    strengths = itertools.cycle([step / 50 for step in range(-100, 101)])
    direction = directions[0].name

    def edit(name: str = direction, strength: float = 1.0) -> list[edit_pb2.Edit]:
        moved = edit_pb2.DirectionEdit(name=name, strength=strength)
        return [edit_pb2.Edit(direction=moved)]

    def edit_distinct() -> bytes:
        return edit_pb2.EditImageRequest(image=new_face(), edits=edit()).SerializeToString()

    def edit_slider() -> bytes:
        moved = edit(strength=next(strengths))
        return edit_pb2.EditImageRequest(image=one, edits=moved).SerializeToString()

    def edit_token() -> bytes:
        moved = edit(strength=next(strengths))
        return edit_pb2.EditImageRequest(latent_token=token, edits=moved).SerializeToString()

    def edit_region() -> bytes:
        assert known is not None
        parts = [region_pb2.RegionPart(class_name=name) for name in known.regions]
        region = region_pb2.Region(parts=parts)
        return edit_pb2.EditImageRequest(
            image=new_face(), edits=edit(known.name), region=region
        ).SerializeToString()

    def stylize_preset() -> bytes:
        source = stylize_pb2.StyleSource(preset=style)
        return stylize_pb2.StylizeRequest(content=new_photo(), styles=[source]).SerializeToString()

    def stylize_picture() -> bytes:
        source = stylize_pb2.StyleSource(image=new_face())
        return stylize_pb2.StylizeRequest(content=new_photo(), styles=[source]).SerializeToString()

    def segment() -> bytes:
        return segment_pb2.SegmentRequest(image=new_face()).SerializeToString()

    found = [
        Workload("EditImage, distinct images", EDIT, Pool(edit_distinct)),
        Workload("EditImage, slider on one image", EDIT, Pool(edit_slider)),
        Workload("EditImage, slider on a token", EDIT, Pool(edit_token)),
        Workload(f"Stylize {PHOTO} px, preset", STYLIZE, Pool(stylize_preset)),
        Workload(f"Stylize {PHOTO} px, picture", STYLIZE, Pool(stylize_picture)),
        Workload("Segment", SEGMENT, Pool(segment)),
    ]
    if known is not None:
        found.insert(1, Workload("EditImage, region of classes", EDIT, Pool(edit_region)))
    return found
