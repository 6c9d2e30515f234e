"""The commands that speak with the service: parse, call wiring, return an exit code.

What a command needs it imports itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from tilesync import __version__
from tilesync.cli.demo import demo
from tilesync.cli.doctor import doctor
from tilesync.cli.exports import exports
from tilesync.cli.link import link
from tilesync.cli.mirror import mirror
from tilesync.cli.rollback import rollback
from tilesync.cli.signals import install_signal_handlers
from tilesync.cli.verify import verify
from tilesync.cli.versions import versions
from tilesync.errors import Interrupted, TilesyncError, UsageError

if TYPE_CHECKING:
    pass


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tilesync")
def cli() -> None:
    """Mirror 3D Tiles exports of the iTwin Mesh Export service, whole and verified.

    Start with `tilesync demo`: it needs no account. Every option reads TILESYNC_<OPTION> too, but for those that delete
    or override a guard.
    """


for command in (mirror, exports, link, verify, versions, rollback, doctor, demo):
    cli.add_command(command)


def _open_closed_streams() -> None:
    """Where a standard stream is closed its number leads nowhere: else the next file or socket would get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: every way out has its exit code, and with `--json` its last line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    install_signal_handlers()
    try:
        code = cli.main(arguments, prog_name="tilesync", standalone_mode=False)
    except click.exceptions.Abort:
        code = _report_error(arguments, Interrupted("interrupted"))
    except click.ClickException as error:
        code = _report_usage_error(arguments, error)
    except TilesyncError as error:
        code = _report_error(arguments, error)
    except Exception as error:  # noqa: BLE001 - the last door: a bug ends in exit 1, and is told
        code = _report_lost_help_output(arguments, error) or _report_bug(arguments, error)
    _exit_process(code if isinstance(code, int) else 0)


def _exit_process(code: int) -> NoReturn:
    """End the process. With the bulk engine loaded, at once: a thread of it that still wants the interpreter while that
    winds down would abort it, and the exit code with it (pyreqwest 0.15.1).
    """
    if "pyreqwest" in sys.modules:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError):  # its reader went away
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _report_error(arguments: list[str], error: TilesyncError) -> int:
    """Tell an error of a request that never became a run; the exit code."""
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.reporters import print_error

    print_error(error)
    return report_early_error(cli, arguments, error)


def _report_usage_error(arguments: list[str], error: click.ClickException) -> int:
    """Tell a usage error as click words it, with the usage of the command."""
    from tilesync.api.masking import SecretMasker
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.streams import write_stream

    text = io.StringIO()
    error.show(text)
    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(text.getvalue()))
    return report_early_error(cli, arguments, UsageError(error.format_message()))


def _report_lost_help_output(arguments: list[str], error: Exception) -> int:
    """The exit code where --help or --version could not be written; 0 for any other error."""
    from tilesync.cli.output.streams import create_output_error, write_stream

    if not isinstance(error, OSError) or not {"-h", "--help", "--version"} & set(arguments):
        return 0
    write_stream(sys.stdout, "")  # what is left would be tried again at the end
    return _report_error(arguments, create_output_error(error))


def _report_bug(arguments: list[str], error: Exception) -> int:
    import traceback

    from tilesync.api.masking import SecretMasker
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.streams import write_stream

    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(traceback.format_exc()))
    wrong = TilesyncError("tilesync met a bug", hint="please report it with the lines above")
    return report_early_error(cli, arguments, wrong, kind=type(error).__name__)
