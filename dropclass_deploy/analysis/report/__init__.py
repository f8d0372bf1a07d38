"""One self-contained page about one run and the artifact exported from it."""

from dropclass_deploy.analysis.report.page import write_report

__all__ = ["write_report"]
