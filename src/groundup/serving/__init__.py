"""The model server: a bundle in, answers over HTTP out.  NumPy, ONNX Runtime and FastAPI; nothing of the training side.

    golden, onnx_scan, engine      the graph: verified, scanned, loaded, self-tested
    settings                       the recipe's ``serve`` section
    strict_json, records           JSON to tensors and back
    large_json, aside              the same for megabytes, beside the event loop
    batcher, service               many requests, one run; then drift, off the hot path
    v2, tensors, invocations       the dialects beside /predict
    admission, routes              limits, rights, drain: one door; the table of paths behind it
    app, openapi                   the same as a FastAPI application, and its documentation
    metrics, logs, protocol        what is seen; what the wire may do
    server, verify                 run a bundle; check one again on this machine

Start with ``routes``, then ``admission``, ``batcher`` and ``engine``: that is the way of a request.
"""
