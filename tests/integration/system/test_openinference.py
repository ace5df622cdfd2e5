"""Does a whole system give the same floats over the Open Inference Protocol as over the other routes?"""

from __future__ import annotations

import http.client
import json
import struct
from typing import Any

import numpy as np

TEXTS = ["I like you. I love you", "", "Zürich — 東京", "A longer text. " * 20]
INFER = "/v2/models/all-MiniLM-L6-v2/infer"


def infer(system: Any, inputs: list[tuple[str, str, np.ndarray]]) -> np.ndarray:
    """One request with everything as bytes behind the JSON, both ways."""
    parts = [
        b"".join(struct.pack("<I", len(one)) + one for one in array.ravel()) if kind == "BYTES" else array.tobytes()
        for _, kind, array in inputs
    ]
    listed = [
        {"name": name, "datatype": kind, "shape": array.shape, "parameters": {"binary_data_size": len(part)}}
        for (name, kind, array), part in zip(inputs, parts, strict=True)
    ]
    head = json.dumps({"inputs": listed, "parameters": {"binary_data_output": True}}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=60)
    try:
        headers = {"content-type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        connection.request("POST", INFER, head + b"".join(parts), headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        length = int(answer.headers["Inference-Header-Content-Length"])
    finally:
        connection.close()
    (output,) = json.loads(body[:length])["outputs"]
    return np.frombuffer(body[length:], "<f4").reshape(output["shape"])


def test_texts_and_their_ids_give_the_floats_of_embed_bit_for_bit(shared_system: Any) -> None:
    for text in TEXTS:  # alone: the same text in another batch may differ in the last bit
        expected = np.array([shared_system.embed(text)], np.float32)
        found = infer(shared_system, [("text", "BYTES", np.array([text.encode()], object))])
        assert found.tobytes() == expected.tobytes()
        status, _, spelled = shared_system.post("/tokenize", {"inputs": text})
        assert status == 200
        ids = np.array([[token["id"] for token in spelled[0]]], np.int64)
        padded = np.pad(ids, ((0, 0), (0, 300)))  # longer than the limit of 256: padding does not count
        mask = np.pad(np.ones_like(ids, np.int32), ((0, 0), (0, 300)))
        by_ids = infer(shared_system, [("input_ids", "INT64", padded), ("attention_mask", "INT32", mask)])
        assert by_ids.tobytes() == expected.tobytes()
