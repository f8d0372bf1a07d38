"""The report: one HTML file that opens from disk, without network and without scripts.

It only reads files: a run folder, the artifact exported from it with its evidence, and a folder of pictures. A section
whose files are missing says "not measured".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropclass_deploy.analysis.report.class_looks import class_looks
from dropclass_deploy.analysis.report.class_table import class_table
from dropclass_deploy.analysis.report.curves import training_curves
from dropclass_deploy.analysis.report.headline import headline, summary
from dropclass_deploy.analysis.report.latency_table import scope_tables
from dropclass_deploy.analysis.report.parity_table import parity_table
from dropclass_deploy.analysis.report.pictures import gallery
from dropclass_deploy.analysis.report.provenance import provenance
from dropclass_deploy.analysis.report.sources import Sources, read_sources
from dropclass_deploy.analysis.report.verdicts import badge
from dropclass_deploy.core.errors import MissingExtraError, UserError
from dropclass_deploy.core.files import write_text

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "report.html.j2"


def write_report(run: Path, artifact: Path, output: Path, *, title: str, predictions: Path | None = None) -> Path:
    """Write the page about a run and its artifact; an older page at ``output`` is replaced.

    Args:
        run: folder with any of ``recipe.yaml``, ``model.json``, ``metrics.jsonl``, ``evaluation.json``.
        artifact: folder with any of ``manifest.json``, ``evidence/parity.json``, ``evidence/bench.json``.
        output: the HTML file.
        title: of the page.
        predictions: folder of colour pictures ``NAME.image.png``, ``NAME.truth.png``, ``NAME.prediction.png``,
            ``NAME.overlay.png``; any of the four.

    Returns:
        ``output``.

    Raises:
        MissingExtraError: when Jinja2 or matplotlib is not installed (extra "analysis").
        RunError, ArtifactError, DataError: when a folder does not exist or one of its files is broken.
        UserError: when ``output`` is a folder.
    """
    template = _template()
    if output.is_dir():
        raise UserError(f"the output {output} is a folder", expected="the path of an HTML file")
    content = _content(read_sources(run, artifact))
    write_text(output, template.render(title=title, gallery=gallery(predictions), **content))
    return output


def _content(sources: Sources) -> dict[str, Any]:
    """Every part of the page by the name that the template uses."""
    looks = class_looks(sources)
    return {
        "sources": sources,
        "looks": looks,
        "summary": summary(sources),
        "headline": headline(sources),
        "charts": training_curves(sources, looks),
        "class_table": class_table(sources.evaluation, looks),
        "parity": parity_table(sources.parity, looks),
        "scopes": scope_tables(sources.bench),
        "timing_notes": sources.bench.notes if sources.bench else (),
        "timed_verdict": badge(sources.bench.parity_verdict if sources.bench else None),
        "provenance": provenance(sources),
    }


def _template() -> Template:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "analysis") from error
    environment = Environment(
        loader=PackageLoader("dropclass_deploy.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE)
