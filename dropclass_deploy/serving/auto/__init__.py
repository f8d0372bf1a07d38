"""The fastest configuration of an artifact that passes the gate on this machine: found by measuring, stored, used."""

from dropclass_deploy.serving.auto.choice import Configuration, stored_choice
from dropclass_deploy.serving.auto.options import AutoOptions

__all__ = ["AutoOptions", "Configuration", "stored_choice"]
