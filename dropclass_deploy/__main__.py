"""``python -m dropclass_deploy``: the command line."""

from dropclass_deploy.cli.app import main

main()
