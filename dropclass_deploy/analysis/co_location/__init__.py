"""The co-location audit: what a network still finds of a class once the classes around it are erased."""

from dropclass_deploy.analysis.co_location.audit import AuditResult, CoLocationAudit
from dropclass_deploy.analysis.co_location.examples import Example, strongest_links
from dropclass_deploy.analysis.co_location.fills import FILLS, Eraser
from dropclass_deploy.analysis.co_location.plan import AuditPlan, plan_audit, planned_evaluations
from dropclass_deploy.analysis.co_location.section import co_location_section

__all__ = [
    "FILLS",
    "AuditPlan",
    "AuditResult",
    "CoLocationAudit",
    "Eraser",
    "Example",
    "co_location_section",
    "plan_audit",
    "planned_evaluations",
    "strongest_links",
]
