"""The Open Inference Protocol V2 over HTTP, with the binary tensor extension, as Triton's own clients speak it.

``routes`` answers; ``tensors`` reads a request's bytes by way of ``encodings`` (compression), ``json_text`` (JSON within
limits) and ``schema`` (what the JSON must say); ``reply`` writes the answer; ``descriptions`` says what a model is.
"""
