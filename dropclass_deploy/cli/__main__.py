"""``python -m dropclass_deploy.cli``."""

from dropclass_deploy.cli.app import main

main()
