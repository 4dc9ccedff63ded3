"""The requests that are sent, as bytes made beforehand: tensors for the raw path, pictures for the
pipelines.

Pictures come from the server's own Generate. Where a workload wants distinct images, every request
has its own: a few pixels bear its number, so that no cache knows it, whatever the cache hashes.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from PIL import Image

from inference import open_inference_pb2 as oip
from velatura.client import AsyncClient
from velatura.client.results import DirectionInfo
from velatura.v1 import edit_pb2, image_pb2, region_pb2
from velatura.v1.edit_pb2 import EditImageRequest
from velatura.v1.segment_pb2 import SegmentRequest
from velatura.v1.stylize_pb2 import StyleSource, StylizeRequest

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
    """Every workload of the pipelines that the bundle can do, on pictures that the server at
    `address` generates; EditImage on distinct images first."""
    async with AsyncClient(address, timeout=120) as client:
        await client.wait_ready(120)
        faces = [sample.image async for sample in client.generate(range(1, FACES + 1))]
        directions = await client.list_directions()
        styles = await client.list_styles()
        roles = {model.role for model in (await client.list_models()).models}
        token = (await client.encode(faces[0])).latent_token
    found = _edits(faces, token, directions, "segmenter" in roles)
    if styles:
        found += _styles(faces, styles[0].name)
    if "segmenter" in roles:
        new_face = Pictures(faces).next
        found.append(_workload("Segment", SEGMENT, lambda: SegmentRequest(image=new_face())))
    return found


def _edits(
    faces: Sequence[Image.Image],
    token: bytes,
    directions: Sequence[DirectionInfo],
    segments: bool,
) -> list[Workload]:
    new_face = Pictures(faces).next
    one = image_pb2.Image(encoded=png(faces[0]))
    rng = random.Random(0)

    def by(direction: DirectionInfo, strength: float = 1.0) -> list[edit_pb2.Edit]:
        moved = edit_pb2.DirectionEdit(name=direction.name, strength=strength)
        return [edit_pb2.Edit(direction=moved)]

    def slide() -> list[edit_pb2.Edit]:
        return by(directions[0], rng.uniform(-2.0, 2.0))

    found = [
        _workload(
            "EditImage, distinct images",
            EDIT,
            lambda: EditImageRequest(image=new_face(), edits=by(directions[0])),
        ),
        _workload(
            "EditImage, slider on one image",
            EDIT,
            lambda: EditImageRequest(image=one, edits=slide()),
        ),
        _workload(
            "EditImage, slider on a token",
            EDIT,
            lambda: EditImageRequest(latent_token=token, edits=slide()),
        ),
    ]
    local = next((each for each in directions if each.regions), None)
    if segments and local is not None:
        parts = [region_pb2.RegionPart(class_name=name) for name in local.regions]
        region = region_pb2.Region(parts=parts)
        found.append(
            _workload(
                "EditImage, region of classes",
                EDIT,
                lambda: EditImageRequest(image=new_face(), edits=by(local), region=region),
            )
        )
    return found


def _styles(faces: Sequence[Image.Image], preset: str) -> list[Workload]:
    photos = [face.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC) for face in faces]
    new_face, new_photo = Pictures(faces).next, Pictures(photos).next

    def by(source: StyleSource) -> StylizeRequest:
        return StylizeRequest(content=new_photo(), styles=[source])

    return [
        _workload(f"Stylize {PHOTO} px, preset", STYLIZE, lambda: by(StyleSource(preset=preset))),
        _workload(
            f"Stylize {PHOTO} px, picture", STYLIZE, lambda: by(StyleSource(image=new_face()))
        ),
    ]


def _workload(name: str, path: str, make: Callable[[], Message]) -> Workload:
    return Workload(name, path, Pool(lambda: make().SerializeToString()))
