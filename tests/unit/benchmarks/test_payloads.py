"""The requests that benchmarks send are what they claim to be."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from benchmarks.payloads import PHOTO, Pictures, Pool, latents, tensor_request
from inference import open_inference_pb2 as oip


def test_tensors_travel_raw() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    request = oip.ModelInferRequest.FromString(tensor_request("net", {"x": array}))
    assert request.model_name == "net"
    assert list(request.inputs[0].shape) == [1, 2, 3]
    assert request.raw_input_contents[0] == array.tobytes()


def test_latents_differ_from_request_to_request() -> None:
    request = latents("net", 2, 3, count=5)
    assert len({request() for _ in range(10)}) == 5


def test_pictures_are_new_in_their_pixels_even_when_shrunk() -> None:
    pictures = Pictures([Image.new("RGB", (PHOTO, PHOTO), (200, 150, 100))])
    seen, shrunk = set(), set()
    for _ in range(40):
        image = Image.open(io.BytesIO(pictures.next().encoded))
        seen.add(image.tobytes())
        shrunk.add(image.resize((128, 128), Image.Resampling.BOX).tobytes())
    assert len(seen) == len(shrunk) == 40


def test_a_pool_hands_out_everything_once_and_makes_more_when_empty() -> None:
    numbers = iter(range(100))
    pool = Pool(lambda: str(next(numbers)).encode())
    pool.fill(3)
    pool.fill(2)
    assert {pool() for _ in range(5)} == {b"0", b"1", b"2", b"3", b"4"}
