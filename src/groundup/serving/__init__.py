"""The model server: a bundle in, answers over HTTP out.  NumPy, ONNX Runtime and FastAPI; nothing of the training side.

    golden, onnx_scan, engine      the graph: verified, scanned, loaded, self-tested
    settings                       the recipe's ``serve`` section
    strict_json, records           JSON to tensors and back
    batcher, watch                 many requests, one run; then drift, off the hot path
    v2, predict, invocations       three dialects over one admission layer
    admission, routes, openapi     limits, auth, drain; the table of paths; the generated documentation
    metrics, logs, protocol        what is seen; what the wire may do
    server, verify                 ``run`` a bundle; check one again on this machine
"""
