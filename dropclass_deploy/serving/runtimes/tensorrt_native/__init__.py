"""TensorRT without torch and without ONNX Runtime: engines found, checked against their records, and run."""
