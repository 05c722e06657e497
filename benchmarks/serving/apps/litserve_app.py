"""LitServe over ONNX Runtime with its own batching."""

import os

import litserve as ls
import numpy as np
import onnxruntime as ort


class Api(ls.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])[0]

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self.session.run(["label", "probabilities"], {"x": x})

    def unbatch(self, output):
        return list(zip(*output, strict=True))

    def encode_response(self, output):
        label, probabilities = output
        return {"outputs": [{"name": "label", "data": [label]}, {"name": "probabilities", "data": probabilities.tolist()}]}


if __name__ == "__main__":
    server = ls.LitServer(Api(max_batch_size=32, batch_timeout=0.002), accelerator="cpu", workers_per_device=1)
    server.run(port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
