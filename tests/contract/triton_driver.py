"""Runs in the environment of tritonclient: takes calls on standard input, gives answers on standard
output, both pickled.

It imports nothing of ours: tritonclient's stubs and ours define the same messages, and one process
cannot hold both.
"""

# ruff: noqa: S301 - only the test that started it writes there

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Arrays = Mapping[str, np.ndarray[Any, Any]]


def ask(address: str, method: str, arguments: Mapping[str, Any]) -> Any:
    """A method of the synchronous client that gives plain data."""
    with triton.InferenceServerClient(address) as client:
        return getattr(client, method)(**arguments)


def ask_aio(address: str, method: str, arguments: Mapping[str, Any]) -> Any:
    """The same of the asyncio client."""

    async def call() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            return await getattr(client, method)(**arguments)

    return asyncio.run(call())


def infer(
    address: str, model: str, inputs: Arrays, outputs: Sequence[str], options: Mapping[str, Any]
) -> Any:
    """One inference of the synchronous client."""
    with triton.InferenceServerClient(address) as client:
        wanted = [triton.InferRequestedOutput(name) for name in outputs] or None
        return unpacked(client.infer(model, tensors(inputs), outputs=wanted, **options))


def infer_together(address: str, model: str, many: Sequence[Arrays]) -> Any:
    """Concurrent inferences of the asyncio client on one channel, answers in order."""

    async def calls() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            requests = [tensors(inputs) for inputs in many]
            return await asyncio.gather(*(client.infer(model, each) for each in requests))

    return [unpacked(result) for result in asyncio.run(calls())]


def tensors(inputs: Arrays) -> list[triton.InferInput]:
    made = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def unpacked(result: triton.InferResult) -> dict[str, Any]:
    response = result.get_response()
    return {
        "id": response.id,
        "model": response.model_name,
        "version": response.model_version,
        "outputs": {each.name: result.as_numpy(each.name) for each in response.outputs},
    }


def main() -> None:
    functions = {each.__name__: each for each in (ask, ask_aio, infer, infer_together)}
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = ("ok", functions[name](*arguments))
        except InferenceServerException as error:
            answer = ("refused", (error.status(), error.message()))
        except Exception as error:
            answer = ("broken", repr(error))
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
