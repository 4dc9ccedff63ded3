"""MLServer's side: a custom runtime around an onnxruntime session. Imported by MLServer, in its own
environment.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

INPUT, OUTPUT = "w_plus", "image"


class Generator(MLModel):  # type: ignore[misc]  # MLServer is not in the environment of the checks
    """w_plus float32 [n, layers, width] → image float32 [n, 3, height, width]."""

    async def load(self) -> bool:
        """Open the graph on all CPUs, without threads that spin, as our server does."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One batch, which MLServer has put together."""
        latents = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        (images,) = self._session.run([OUTPUT], {INPUT: latents})
        output = NumpyCodec.encode_output(OUTPUT, images)
        return InferenceResponse(model_name=self.name, outputs=[output])
