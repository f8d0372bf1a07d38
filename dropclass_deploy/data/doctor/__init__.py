"""The mask doctor: finds what is wrong with a data set before training does.

``examine`` reads every file once (``scan``), keeps what it saw (``cache``), and lets every check look at the facts
(``checks``). ``fix_map`` proposes a class table, ``chart`` draws the shares of the classes.
"""

from dropclass_deploy.data.doctor.examine import examine, examine_datasets
from dropclass_deploy.data.doctor.findings import Finding
from dropclass_deploy.data.doctor.report import Report

__all__ = ["Finding", "Report", "examine", "examine_datasets"]
