"""Writing a piece of an ONNX graph line by line: each call adds a node and gives the name of its output."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.export.graphs.library import helper, numpy_helper


class Nodes:
    """Nodes and constants under one prefix.

    Args:
        prefix: of every name; must be no one else's in the graph.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def __call__(self, op: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node with one output; its name is ``out`` or made up."""
        name = f"{self.prefix}.{len(self.nodes)}.{op.lower()}"
        self.nodes.append(helper.make_node(op, list(inputs), [out or name], name=name, **attributes))
        return out or name

    def split(self, tensor: str, parts: int, axis: int) -> list[str]:
        """Cut a tensor into equal parts along ``axis``."""
        name = f"{self.prefix}.{len(self.nodes)}.split"
        outputs = [f"{name}.{index}" for index in range(parts)]
        self.nodes.append(helper.make_node("Split", [tensor], outputs, name=name, axis=axis, num_outputs=parts))
        return outputs

    def constant(self, values: npt.NDArray[Any]) -> str:
        """A constant tensor."""
        name = f"{self.prefix}.c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def cast(self, tensor: str, dtype: str, out: str = "") -> str:
        """``tensor`` as another type, by NumPy's name of it."""
        return self("Cast", tensor, out=out, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def slice(self, tensor: str, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...]) -> str:
        """``tensor[starts:ends]`` along ``axes``."""
        return self("Slice", tensor, self.ints(*starts), self.ints(*ends), self.ints(*axes))

    def branch(self, output: str, dtype: str) -> Any:
        """All of this as the body of an If, whose result is ``output``."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        value = helper.make_tensor_value_info(output, kind, None)
        return helper.make_graph(self.nodes, self.prefix, [], [value], self.initializers)
