"""Engines that may meet an exported ``*.mask.onnx``; each runs in a process of its own (see ``isolation``).

An engine is a function ``(model, images) → Outcome``. ``images`` is uint8 (N, H, W, 3); what an engine raises is what is
recorded of it.
"""
