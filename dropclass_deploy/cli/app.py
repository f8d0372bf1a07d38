"""The ``dropclass`` command: its sub-commands, and how errors become exit codes.

0 success · 2 the user's mistake, one line on stderr · 3 a gate refused · 1 anything else. Tracebacks only with --debug.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence

import typer

from dropclass_deploy import __version__
from dropclass_deploy.cli import (
    analyze,
    auto,
    bench,
    check_data,
    demo,
    emit,
    engine,
    evaluate,
    export,
    predict,
    probe,
    serve,
    train,
    verify,
)
from dropclass_deploy.cli.console import leave_stdout
from dropclass_deploy.core.errors import DropclassError, GateRefusedError, UserError, printable

SUCCESS, FAILURE, MISTAKE, REFUSED = 0, 1, 2, 3
_INTERRUPTED = 130
"""What the parser returns for Ctrl-C, which it keeps to itself."""
DEBUG = "--debug"

app = typer.Typer(
    name="dropclass",
    add_completion=False,
    rich_markup_mode=None,
    help="Train segmentation models that do not fail on rare classes; export the plain model and prove, class by class, "
    "that nothing was lost. Any command takes --debug for a traceback. Exit codes: 0 success, 2 a mistake in what was "
    "given, 3 a gate refused, 1 anything else.",
)
for module in (
    demo,
    check_data,
    train,
    evaluate,
    export,
    engine,
    emit,
    verify,
    analyze,
    auto,
    bench,
    predict,
    probe,
    serve,
):
    module.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dropclass {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    debug = DEBUG in arguments
    given = [argument for argument in arguments if argument != DEBUG]
    try:
        # Nothing at all asks what there is; the parser's own way would raise the whole help as an error.
        result = app(given or ["--help"], standalone_mode=False)
    except KeyboardInterrupt:
        return _say("interrupted", FAILURE, debug=debug)
    except UserError as error:
        return _say(str(error), MISTAKE, debug=debug)
    except GateRefusedError as error:
        return _say(str(error), REFUSED, debug=debug)
    except DropclassError as error:
        return _say(str(error), FAILURE, debug=debug)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong.
        leave_stdout()
        return SUCCESS
    except OSError as error:
        return _say(f"{error.filename or 'a file'}: {error.strerror or error}", _code_of(error), debug=debug)
    except Exception as error:
        return _unexpected(error, debug=debug)
    if result == _INTERRUPTED:
        return _say("interrupted", FAILURE, debug=debug)
    return result if isinstance(result, int) else SUCCESS


def _code_of(error: OSError) -> int:
    """A path that cannot be used as asked is the user's to mend; a failing disk is not."""
    mistakes = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
    return MISTAKE if isinstance(error, mistakes) or error.errno == errno.EROFS else FAILURE


def _unexpected(error: Exception, *, debug: bool) -> int:
    """Mistakes on the command line itself come as the parser's exceptions; all else is a fault of ours."""
    describe = getattr(error, "format_message", None)
    if callable(describe):
        return _say(f"{describe()} See dropclass --help.", MISTAKE, debug=debug)
    if type(error).__name__ in {"Abort", "Exit"}:
        return int(getattr(error, "exit_code", FAILURE))
    return _say(f"{type(error).__name__}: {error} (run again with {DEBUG} for the traceback)", FAILURE, debug=debug)


def _say(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write("dropclass: " + printable(" ".join(message.split())) + "\n")
    return code
