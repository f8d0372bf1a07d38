"""What the doctor looks for: each check turns the evidence into findings and reads no file.

``CHECKS`` is in the order in which a user should mend things: what keeps files from being read comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dropclass_deploy.data.doctor.checks.duplicates import check_duplicates
from dropclass_deploy.data.doctor.checks.files import (
    check_partners,
    check_readable,
    check_sizes,
    check_splits,
    check_turns,
)
from dropclass_deploy.data.doctor.checks.presence import check_presence
from dropclass_deploy.data.doctor.checks.values import check_values
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding

Check = Callable[[Evidence], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_splits,
    check_partners,
    check_readable,
    check_sizes,
    check_turns,
    check_values,
    check_presence,
    check_duplicates,
)
