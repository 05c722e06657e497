"""FastAPI over ONNX Runtime in as few lines as most people write."""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    tensor = request.inputs[0]
    x = np.array(tensor.data, np.float32).reshape(tensor.shape)
    label, probabilities = session.run(["label", "probabilities"], {"x": x})
    return {"outputs": [{"name": "label", "data": label.tolist()}, {"name": "probabilities", "data": probabilities.ravel().tolist()}]}


uvicorn.run(app, port=int(os.environ["PORT"]), access_log=False, log_level="warning")
