"""An ONNX file read without the ``onnx`` package: signature, metadata, precision, and what must not be in it."""
