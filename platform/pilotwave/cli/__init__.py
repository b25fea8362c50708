"""The command line, one file per command.

Exit codes: 0 done (a spent budget is done), 2 the user's input is wrong, 3 the failure-rate breaker stopped
it, 4 infrastructure failed, 130 interrupted after saving. An error is one line on standard error; set
``PILOTWAVE_TRACEBACK=1`` to see where it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pilotwave.errors import PilotwaveError


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    # What a campaign starts (Ray, MLflow) must not call home, and this is set before anything imports them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs the command line and returns its exit code."""
    from pilotwave.cli.application import app

    return guarded(lambda: app(args=arguments, prog_name="pilotwave", standalone_mode=False))


def guarded(command: Callable[[], object]) -> int:
    """Does what a command does and returns its exit code; whatever goes wrong is one line on standard error."""
    import typer

    try:
        result = command()
        return result if isinstance(result, int) else 0
    except PilotwaveError as error:
        if os.environ.get("PILOTWAVE_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader (head, less) is gone; standard output must not fail again while the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Typer's usage errors are click's in some versions and its own in others; both can say themselves.
        if hasattr(error, "format_message"):
            print(f"error: {' '.join(error.format_message().split())} (see --help)", file=sys.stderr)
            return 2
        if os.environ.get("PILOTWAVE_TRACEBACK"):
            raise
        line = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"error: {line} (this is a defect of pilotwave; PILOTWAVE_TRACEBACK=1 shows where it is)",
            file=sys.stderr,
        )
        return 4


__all__ = ["guarded", "main", "run"]
