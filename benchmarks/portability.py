"""Which engine gives the same mask: every ``models/*.mask.onnx`` of an artifact, held against ONNX Runtime on the CPU.

    python benchmarks/portability.py ARTIFACT… [--image FILE] --output benchmarks/results/portability.json
    python benchmarks/portability.py --markdown benchmarks/results/portability.json

Each engine runs each file once in a process of its own, with limits on time and memory: a crash or a hang is recorded
like an error. Speeds are not measured here. The JavaScript engines are installed by npm when they are first needed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from portability_engines.isolation import BUILT, ERROR, TIMEOUT_S, Answer, ask
from portability_engines.outcome import compare
from portability_engines.worker import ENGINES

BASELINE = "onnxruntime"
TINY = (64, 96)
"""(H, W) for onnx's interpreter: its memory grows to gigabytes on whole images."""
NEAR_TIES = 1e-4
"""Share of pixels that two float32 engines may disagree on: the bound of the parity gate."""

SAME, CLOSE, DIFFERS = "same", "close", "differs"
WORKS = (SAME, CLOSE, BUILT)

Images = npt.NDArray[np.uint8]
Row = dict[str, Any]


def read_images(path: Path) -> Images:
    """uint8 (1, H, W, 3) of an image file."""
    return np.asarray(Image.open(path).convert("RGB"))[None]


def central_crop(images: Images, size: tuple[int, int] = TINY) -> Images:
    """The middle of ``images``, at most ``size``."""
    top, left = (max((whole - part) // 2, 0) for whole, part in zip(images.shape[1:3], size, strict=True))
    return np.ascontiguousarray(images[:, top : top + size[0], left : left + size[1]])


def judged(answer: Answer, baseline: Answer, row: Row) -> Row:
    """``row`` with what the engine's answer says beside the baseline's."""
    row |= {"version": answer.version, "status": answer.kind, "seconds": answer.seconds}
    row["error" if answer.kind == ERROR else "note"] = answer.text
    if answer.mask is not None and baseline.mask is not None:
        try:
            differing = compare(baseline.mask, answer.mask)
        except ValueError as error:
            return row | {"status": DIFFERS, "works": False, "note": str(error)}
        share = differing / baseline.mask.size
        row |= {"pixels": baseline.mask.size, "differing_pixels": differing}
        row["status"] = SAME if differing == 0 else CLOSE if share <= NEAR_TIES else DIFFERS
    return row | {"works": row["status"] in WORKS}


def results_of(file: Path, images: Images, engines: list[str], timeout_s: float) -> list[Row]:
    """One row an engine for one network file."""
    baselines: dict[tuple[int, ...], Answer] = {}
    rows = []
    for engine in engines:
        given = central_crop(images) if engine == "onnx-reference" else images
        if given.shape not in baselines:
            baselines[given.shape] = ask(BASELINE, file, given, timeout_s)
        baseline = baselines[given.shape]
        answer = baseline if engine == BASELINE else ask(engine, file, given, timeout_s)
        rows.append(judged(answer, baseline, {"file": file.name, "engine": engine, "shape": list(given.shape)}))
        print(f"  {file.name} {engine}: {cell(rows[-1])}", file=sys.stderr)
    return rows


def examine(artifact: Path, image: Path | None, engines: list[str], timeout_s: float) -> Row:
    """Every mask file of one artifact in every engine."""
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    images = read_images(image or artifact / "sample" / "image.png")
    files = sorted((artifact / "models").glob("*.mask.onnx"), key=lambda file: (len(file.name), file.name))
    print(f"{manifest['name']} ({manifest['model']}), {len(files)} files", file=sys.stderr)
    return {
        "artifact": manifest["name"],
        "model": manifest["model"],
        "image": image.name if image else "sample/image.png",
        "shape": list(images.shape),
        "results": [row for file in files for row in results_of(file, images, engines, timeout_s)],
    }


def cell(row: Row) -> str:
    """One result in a few words."""
    if row["status"] == ERROR:
        operator = re.match(r"(\w+) \(", row["error"])
        return f"no: stops at `{operator[1]}`" if operator else f"no: {row['error'][:70]}"
    if row["status"] == BUILT:
        return "parses and builds"
    if row["status"] == SAME:
        return "same mask"
    if "pixels" not in row:
        return f"no: {row['note']}"
    return f"{row['differing_pixels']:,} of {row['pixels']:,} pixels differ"


def markdown(report: Row) -> str:
    """A table an artifact: engines down, files across."""
    lines = []
    for part in report["artifacts"]:
        files = list(dict.fromkeys(row["file"] for row in part["results"]))
        cells = {(row["engine"], row["file"]): row for row in part["results"]}
        versions = {row["engine"]: row["version"] for row in reversed(part["results"]) if row["version"]}
        lines += [f"{part['artifact']} (`{part['model']}`), image {part['shape'][1]}×{part['shape'][2]}", ""]
        lines += ["| engine | version | " + " | ".join(f"`{file}`" for file in files) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(files)]
        for engine in dict.fromkeys(row["engine"] for row in part["results"]):
            told = [cell(cells[engine, file]).replace("|", "\\|") for file in files]
            lines.append(f"| {engine} | {versions.get(engine, '')} | " + " | ".join(told) + " |")
        lines.append("")
    return "\n".join(lines)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="*", metavar="ARTIFACT")
    parser.add_argument("--image", type=Path, help="default: each artifact's own sample")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="may be repeated; default: all")
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S)
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print the table of a stored result and stop")
    chosen = parser.parse_args(arguments)
    if not chosen.artifacts and not chosen.markdown:
        parser.error("name an artifact, or a stored result with --markdown")
    missing = [path for path in chosen.artifacts if not (path / "manifest.json").is_file()]
    if missing:
        parser.error(f"{missing[0]} is not an artifact: it has no manifest.json")
    return chosen


def main() -> None:
    """Run, write the JSON and print the table."""
    arguments = parsed()
    if arguments.markdown:
        print(markdown(json.loads(arguments.markdown.read_text(encoding="utf-8"))))
        return
    engines = arguments.engine or list(ENGINES)
    report = {
        "command": "python benchmarks/portability.py ARTIFACT…",
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "baseline": BASELINE,
        "near_ties": NEAR_TIES,
        "artifacts": [examine(path, arguments.image, engines, arguments.timeout_s) for path in arguments.artifacts],
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
