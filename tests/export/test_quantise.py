"""Calibration images, conversions of a core, operators taken back, and the search for blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from trained_street import DATA

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.graphs.quantised import blocks_of, linear_nodes, with_float_nodes
from dropclass_deploy.export.quantise.calibration import choose_images, taking_turns
from dropclass_deploy.export.quantise.half import halved
from dropclass_deploy.export.quantise.int8 import calibration_batches
from dropclass_deploy.export.quantise.mixed import Search
from dropclass_deploy.export.quantise.static import quantised
from dropclass_deploy.export.size_check import open_graph
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.serving.parity.rule import NON_INFERIORITY, ClassFigures, ClassVerdict, judge


def test_classes_take_turns_the_rare_one_first() -> None:
    """By hand: class 2 is the rarest, then 1, then 0. Image 3 has most of class 2, image 1 most of class 1, 0 most of 0."""
    pixels = np.array([[90, 1, 0], [50, 9, 0], [80, 2, 1], [10, 0, 3]])
    assert taking_turns(pixels, [2, 1, 0], 4) == [3, 1, 0, 2]
    assert taking_turns(pixels, [2, 1, 0], 2) == [3, 1]
    assert taking_turns(np.array([[0], [4], [0]]), [0], 3) == [1, 0, 2]  # what is left holds nothing


def test_every_class_is_among_the_chosen_images() -> None:
    data = open_dataset("synthetic:train=60", "train")
    chosen = choose_images(data, 12)
    seen = {int(label) for index in range(len(chosen)) for label in np.unique(chosen.mask(index))} - {255}
    assert len(chosen) == 12
    assert seen == set(range(12))
    cyclist = data.classes.names.index("cyclist")
    most = max(range(60), key=lambda index: int((data.mask(index) == cyclist).sum()))
    assert chosen.indices[0] == most  # the rarest class chooses first


def logits(model: onnx.ModelProto, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    image = open_dataset(DATA, "val").image(0)[: size[0], : size[1]]
    return open_graph(model).run(["logits"], {"image": Preprocess().normalise(image)})[0]


def test_core_and_tail_make_the_network_again(street_traced: Traced) -> None:
    core, tail = split_tail(street_traced.graph)
    assert core.graph.output[0].name == tail.coarse
    assert graphs.operator_counts(core)["Resize"] == 0
    again = join_tail(core, tail)
    onnx.checker.check_model(again, full_check=True)
    for size in ((64, 96), (61, 93)):
        np.testing.assert_array_equal(logits(again, size), logits(street_traced.graph, size))


def test_float16_halves_the_weights_and_keeps_the_tail(street_traced: Traced) -> None:
    core, tail = split_tail(street_traced.graph)
    half = join_tail(halved(core), tail)
    onnx.checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.6 * street_traced.graph.ByteSize()
    expected = logits(street_traced.graph)
    # 11 bits of mantissa through five convolutions: about 1e-2 of the largest logit
    np.testing.assert_allclose(logits(half), expected, atol=2e-2 * np.abs(expected).max())


@pytest.fixture(scope="module")
def int8_core(street_traced: Traced) -> onnx.ModelProto:
    chosen = choose_images(open_dataset(DATA, "train"), 8)
    core, _ = split_tail(street_traced.graph)
    return quantised(core, calibration_batches(chosen, Preprocess(), 1), "onnxruntime minmax, per channel")


def test_int8_keeps_names_and_leaves_the_coarse_logits_in_float(
    street_traced: Traced, int8_core: onnx.ModelProto
) -> None:
    core, _ = split_tail(street_traced.graph)
    assert list(linear_nodes(int8_core)) == list(linear_nodes(core))
    last = next(node for node in int8_core.graph.node if int8_core.graph.output[0].name in node.output)
    assert last.op_type == "Conv"
    assert graphs.operator_counts(int8_core)["DequantizeLinear"] > 6


def test_all_blocks_taken_back_give_the_float_network_bit_for_bit(
    street_traced: Traced, int8_core: onnx.ModelProto
) -> None:
    core, tail = split_tail(street_traced.graph)
    names = [name for block in blocks_of(core).values() for name in block]
    back = join_tail(with_float_nodes(int8_core, core, names), tail)
    assert graphs.operator_counts(back)["QuantizeLinear"] == 0
    np.testing.assert_array_equal(logits(back), logits(street_traced.graph))


def test_one_block_taken_back_is_nearer_to_float(street_traced: Traced, int8_core: onnx.ModelProto) -> None:
    """The first convolution alone: its weights are the float ones, the rest stays quantised."""
    core, tail = split_tail(street_traced.graph)
    name, names = next(iter(blocks_of(core).items()))
    assert name.startswith("stem.0")
    one = with_float_nodes(int8_core, core, names)
    onnx.checker.check_model(join_tail(one, tail), full_check=True)
    counts = graphs.operator_counts(one)["QuantizeLinear"]
    assert 0 < counts < graphs.operator_counts(int8_core)["QuantizeLinear"]
    assert not np.array_equal(logits(join_tail(one, tail)), logits(join_tail(int8_core, tail)))


def test_blocks_follow_the_modules_and_hold_every_operator(street_traced: Traced) -> None:
    core, _ = split_tail(street_traced.graph)
    blocks = blocks_of(core)
    assert list(blocks) == ["stem.0", "stem.3", "body.0", "body.3", "context.0", "classifier"]
    assert sorted(name for names in blocks.values() for name in names) == sorted(node.name for node in core.graph.node)
    assert len(blocks_of(core, most=3)) == 3  # too few for single modules: cut into stretches


def test_a_graph_that_cannot_be_quantised_is_one_line(street_traced: Traced) -> None:
    with pytest.raises(ModelError, match="cannot quantise the network") as caught:
        quantised(street_traced.graph, [np.zeros((1, 4, 8, 8), np.float32)], "onnxruntime minmax, per channel")
    assert "\n" not in str(caught.value)


def verdicts(**deltas: float) -> tuple[ClassVerdict, ...]:
    """Classes with a sharp interval around a loss in points; 'rare' has the narrow margin."""
    figures = (
        ClassFigures(name, name == "rare", 0.5, 0.5 + loss / 100, (loss / 100, loss / 100), 50, 10_000)
        for name, loss in deltas.items()
    )
    return tuple(judge(NON_INFERIORITY, item) for item in figures)


def additive(kept: Sequence[str]) -> tuple[ClassVerdict, ...]:
    """By hand: 'rare' loses 2 points, of which block b gives back 1.5 and c 0.4; 'road' 0.6, of which a gives 0.2."""
    rare = -2.0 + 1.5 * ("b" in kept) + 0.4 * ("c" in kept)
    road = -0.6 + 0.2 * ("a" in kept)
    return verdicts(rare=rare, road=road)


def test_the_search_keeps_the_fewest_blocks_that_save_every_class() -> None:
    """rare needs b and c (−0.1 is within 0.3), road needs a (−0.4 is within 0.5)."""
    point = Search(("a", "b", "c", "d"), additive).run()
    assert point.passes
    assert point.kept == ("a", "b", "c")


def test_the_search_never_takes_every_block_back() -> None:
    """That would be the float32 network under another name."""
    point = Search(("a", "b"), lambda kept: verdicts(rare=-1.0)).run()
    assert not point.passes
    assert len(point.kept) == 1


def test_the_search_takes_what_helps_the_worst_class_first_and_drops_what_is_not_needed() -> None:
    def evaluate(kept: Sequence[str]) -> tuple[ClassVerdict, ...]:
        # a alone helps most, but where b and c are kept it is not needed any more
        gain = 1.0 * ("a" in kept) + 0.9 * ("b" in kept) + 0.9 * ("c" in kept) - 0.9 * ("a" in kept and len(kept) > 1)
        return verdicts(rare=-2.0 + gain)

    search = Search(("a", "b", "c", "d"), evaluate)
    point = search.run()
    assert [item.kept for item in search.path][:4] == [(), ("a",), ("a", "b"), ("a", "b", "c")]
    assert point.kept == ("b", "c")
    assert point.passes
    assert search.effects["a"]["rare"] == pytest.approx(0.01)


def test_nothing_is_kept_where_int8_passes_by_itself() -> None:
    search = Search(("a",), lambda kept: verdicts(rare=-0.1, road=-0.4))
    assert search.run().kept == ()
    assert not search.effects


def test_a_search_without_time_stops_and_says_so() -> None:
    search = Search(("a", "b"), additive, deadline=0.0)
    assert not search.run().passes
    assert search.cut_short
