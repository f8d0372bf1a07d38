"""``docs/README.md``: the model card. Every figure in it was measured; what was not measured is said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dropclass_deploy.core.metrics import percent
from dropclass_deploy.core.preprocess import ValueRange
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.export.bias_card import PAGE
from dropclass_deploy.export.mask_format import MaskFormat
from dropclass_deploy.export.model_card_code import how_to_run
from dropclass_deploy.export.options import ExportOptions
from dropclass_deploy.export.quantise.outcome import Shipped
from dropclass_deploy.export.sample import SampleCheck
from dropclass_deploy.export.shapes import describe_shape
from dropclass_deploy.export.source import Source


@dataclass(frozen=True)
class CardFacts:
    """What the card tells beside the source and the options.

    Attributes:
        name: of the artifact.
        check: what the gate at export measured.
        references: how many reference masks are stored.
        notes: sentences about what the export decided by itself.
        imposed_size: (height, width) that the shape forces on every image, when the evaluation ran at their own size.
        shipped: lower precisions that passed the gate.
    """

    name: str
    check: SampleCheck
    references: int
    notes: tuple[str, ...]
    imposed_size: tuple[int, int] | None = None
    shipped: tuple[Shipped, ...] = ()


def model_card(source: Source, options: ExportOptions, facts: CardFacts) -> str:
    """The model card as Markdown."""
    sections = [
        f"# {_escaped(facts.name)}\n\n{_summary(source, options, facts)}",
        _section("Run it", how_to_run(source, options)),
        _section("Preprocessing", _preprocessing(source, options.mask_format)),
        _section("Classes", _classes(source)),
        _section("Measured before export", _evaluation(source, facts)),
        _section("Measured at export", _export_check(facts)),
        _section("Limits", _limits(source, facts)),
        _section("Provenance and licence", _provenance(source, options)),
    ]
    return "".join(sections)


def _section(title: str, body: str) -> str:
    return f"\n## {title}\n\n{body}"


def _escaped(text: Any) -> str:
    """Text that cannot end a table cell or start markup."""
    return "".join("\\" + sign if sign in r"\`*_[]<>|#" else sign for sign in " ".join(str(text).split()))


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _summary(source: Source, options: ExportOptions, facts: CardFacts) -> str:
    return (
        f"Semantic segmentation into {len(source.classes)} classes: network `{source.model}`, deploy head "
        f"`{source.deploy_head}`, float32, input shape `{describe_shape(options.shape)}`, ONNX opset {options.opset}.\n\n"
        f"- `models/model.mask.onnx`: {_mask_signature(options.mask_format)}\n"
        f"{_sparse_line(facts)}"
        "- `models/model.onnx`: `image` float32 (N, 3, H, W), normalised → `logits` float32 (N, C, H, W)\n"
        "- `models/model.safetensors`: the network's state dict\n"
        f"{_bias_card_line(options)}"
        "- `manifest.json`: the sha256 of every exported file\n"
    )


def _bias_card_line(options: ExportOptions) -> str:
    if options.bias_card is None:
        return ""
    return (
        f"- [`{PAGE}`]({PurePosixPath(PAGE).name}): the bias card, why the model says what it says, and its figures\n"
    )


def _mask_signature(form: MaskFormat) -> str:
    image = "uint8 (N, H, W, 3) RGB" if form.bake_preprocess else "float32 (N, 3, H, W), normalised"
    mask = {"NHW": "(N, H, W)", "NHWC": "(N, H, W, 1)", "NCHW": "(N, 1, H, W)"}[form.layout]
    return f"`image` {image} → `mask` {form.dtype} {mask} of class ids"


def _sparse_line(facts: CardFacts) -> str:
    """The second mask file, where there is one, and how far it was from the first on the sample."""
    differing = facts.check.sparse_differing
    if differing is None:
        return ""
    return (
        "- `models/model.sparse.mask.onnx`: the same mask for CPUs, with a head that looks closely only where classes meet; "
        "its time depends on the image. It equals the dense one but for pixels whose two largest logits differ by less than "
        f"float32's rounding: {differing} of the sample's pixels.\n"
    )


def _preprocessing(source: Source, form: MaskFormat) -> str:
    spec = source.preprocess
    inside = "has the normalisation inside" if form.bake_preprocess else "takes images that were normalised before"
    size = f"resized to {spec.size[0]}×{spec.size[1]} (Pillow bilinear)" if spec.size else "at its own size"
    return _windowing(spec.value_range) + (
        f"RGB, each image {size}, then `(image / 255 − mean) / std` with mean {list(spec.mean)} and std "
        f"{list(spec.std)} in R, G, B order. `models/model.mask.onnx` {inside}. The same "
        "specification stands in `preprocess.json` and in the metadata of every ONNX file.\n" + _sliding(spec.window)
    )


def _sliding(window: Window | None) -> str:
    """How large images are run, and that the ONNX files know nothing of it."""
    if window is None:
        return ""
    return (
        f"\nThen a window of {window.height}×{window.width} slides over the image with an overlap of {window.overlap:g} "
        f"and {window.blending} blending of the logits; smaller images are padded ({window.padding}) after normalisation. "
        "The definitions are those of MONAI's `sliding_window_inference`. The windows are **not** inside the ONNX files: "
        "`models/model.mask.onnx` segments what it is given, one window or another image, as a whole. `dropclass predict` "
        "and the `Segmenter` slide over `models/model.onnx`, whose logits are blended before the argmax; "
        "`sample/image.png` is a single window.\n"
    )


def _windowing(value_range: ValueRange | None) -> str:
    """What happens to raw values, and that the networks come after it."""
    if value_range is None:
        return ""
    low, high = value_range
    return (
        f"Images of one channel hold raw values; those from {low:g} to {high:g} become 0 … 255 first, in float64: "
        f"`np.rint(np.clip((raw - {low!r}) / ({high!r} - {low!r}) * 255, 0, 255)).astype(np.uint8)`, then three equal "
        "channels. 8-bit colour images, `sample/image.png` among them, stand after that step. It is **not** inside the ONNX "
        "files: `models/model.mask.onnx` takes uint8 RGB after the range was applied. `dropclass predict` and the "
        "`Segmenter` apply it.\n\n"
    )


def _classes(source: Source) -> str:
    table = source.classes
    rows = [
        [str(index), _escaped(name), "#{:02x}{:02x}{:02x}".format(*colour), "rare" if table.is_rare(index) else ""]
        for index, (name, colour) in enumerate(zip(table.names, table.palette, strict=True))
    ]
    text = _table(["id", "class", "colour", ""], rows) + (
        f"\nIn masks of class ids the value {table.ignore_index} marks pixels that count nowhere; raw label values of a data "
        "set are mapped to class ids before."
    )
    if not table.rare:
        text += " Which classes are rare is not known: no training pixels were counted."
    return text + "\n"


def _evaluation(source: Source, facts: CardFacts) -> str:
    evaluation = source.evaluation
    heads: Mapping[str, Any] = (evaluation or {}).get("heads", {})
    if not evaluation or not heads:
        return "Accuracy was not measured.\n"
    where = f"{_escaped(evaluation.get('data', '?'))}, split {_escaped(evaluation.get('split', '?'))}"
    names = list(heads)
    totals = [
        [label, *(percent(heads[head].get(key), 2) for head in names)]
        for label, key in (("mIoU", "miou"), ("rare mIoU", "rare_miou"), ("pixel accuracy", "pixel_accuracy"))
    ]
    return (
        f"PyTorch, {where}, {evaluation.get('images', '?')} images, one confusion matrix over the whole split, in "
        f"per cent. The exported head is `{source.deploy_head}`.\n\n"
        + _size_warning(facts.imposed_size)
        + _table(["IoU", *names], [*_class_rows(heads), *totals])
        + "\n–: the class occurs neither in the labels nor in the masks.\n"
    )


def _size_warning(imposed: tuple[int, int] | None) -> str:
    if imposed is None:
        return ""
    height, width = imposed
    return (
        f"Measured at the images' own size; the artifact resizes to {height}×{width}, which was not measured. "
        "`dropclass evaluate` on this folder measures it.\n\n"
    )


def _class_rows(heads: Mapping[str, Any]) -> list[list[str]]:
    columns = [{row["name"]: row for row in result.get("classes", [])} for result in heads.values()]
    return [
        [_escaped(name), *(percent(column.get(name, {}).get("iou"), 2) for column in columns)] for name in columns[0]
    ]


def _export_check(facts: CardFacts) -> str:
    check = facts.check
    stored = (
        f"{facts.references} reference masks of the PyTorch model are stored" if facts.references else "None stored"
    )
    return (
        f"On `sample/image.png`, ONNX Runtime against PyTorch: {check.disagreement:.4%} of the mask's pixels differ, the "
        f"largest difference of a logit is {check.largest_difference:.3g}.\n\n"
        "Parity of the float32 files class by class was not measured at export time. `dropclass verify` measures it and "
        f"writes `evidence/parity.json`. Reference masks: {stored}.\n" + _lower_precisions(facts.shipped)
    )


def _lower_precisions(shipped: tuple[Shipped, ...]) -> str:
    """A row for each precision that passed the gate."""
    if not shipped:
        return ""
    rows = [
        [
            item.precision,
            _escaped(item.made_by),
            ", ".join(f"{engine.runtime}: {engine.verdict}" for engine in item.judged),
            str(item.report.images),
            f"{item.report.pixel_disagreement:.3%}",
            f"{_escaped(item.worst_class[0])} {item.worst_class[1]:+.2f}",
        ]
        for item in shipped
    ]
    header = [
        "precision",
        "made by",
        "judged on",
        "images",
        "pixels that differ",
        "largest loss of a class, points of IoU",
    ]
    return (
        "\nLower precisions (`models/model.PRECISION.…`) that passed the per-class gate against PyTorch's masks; another "
        "engine has to be judged by itself:\n\n" + _table(header, rows)
    )


def _limits(source: Source, facts: CardFacts) -> str:
    lines = [*facts.notes]
    if source.preprocess.size is None and source.preprocess.window is None:
        lines.append("Each image runs at its own size; sizes unlike those of the training data were not measured.")
    lines += [
        "Images unlike the training data were not measured; there the figures above say nothing.",
        "Latency was not measured at export time; `dropclass bench` measures it where the model shall run.",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _provenance(source: Source, options: ExportOptions) -> str:
    rows = [[_escaped(key), _escaped(value)] for key, value in source.provenance.items()]
    rows += [["author", _escaped(options.author)], ["licence of the weights", _escaped(options.licence)]]
    return _table(["", ""], rows)
