"""The group of commands and the entry point: run a command, convert each error to an exit code.

Each command imports what it needs when it runs, so that --help starts fast.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import NoReturn

import click

from tilesync import __version__
from tilesync.cli.commands.completion import completion
from tilesync.cli.commands.config import config
from tilesync.cli.commands.demo import demo
from tilesync.cli.commands.diff import diff
from tilesync.cli.commands.doctor import doctor
from tilesync.cli.commands.exports import exports
from tilesync.cli.commands.fleet import fleet
from tilesync.cli.commands.link import link
from tilesync.cli.commands.mirror import mirror
from tilesync.cli.commands.pack import pack
from tilesync.cli.commands.rollback import rollback
from tilesync.cli.commands.serve import serve, view
from tilesync.cli.commands.status import status
from tilesync.cli.commands.verify import verify
from tilesync.cli.commands.versions import versions
from tilesync.cli.help_groups import SectionedGroup
from tilesync.cli.signals import exit_on_signals
from tilesync.errors import Interrupted, TilesyncError, UsageError


@click.group(cls=SectionedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tilesync")
def cli() -> None:
    """Mirror 3D Tiles exports of the iTwin Mesh Export service, whole and verified.

    Start with `tilesync demo`: it needs no account. Each option can also be set by the variable TILESYNC_<OPTION>,
    except options that delete or override a guard, and each can have a default in a file: `tilesync config` names it.
    """


cli.add_section("Mirror", mirror, fleet, demo)
cli.add_section("Look", view, serve, status, exports, versions, diff, link)
cli.add_section("Maintain", verify, rollback, pack, doctor)
cli.add_section("Set up", config, completion)


def _open_closed_streams() -> None:
    """Open the null device for each closed standard stream, so that no later file or socket gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line. Every way to end has an exit code and, with `--json`, a last line."""
    try:
        code = _run_command(sys.argv[1:] if arguments is None else arguments)
        exit_on_signals(code)  # the last line has told it
    except (KeyboardInterrupt, Interrupted) as second:  # a second signal, while the first one was reported
        os._exit(getattr(second, "exit_code", Interrupted.exit_code))
    _exit_process(code)


def _run_command(arguments: list[str]) -> int:
    """Run a command and return the exit code; each error is reported."""
    try:
        _open_closed_streams()
        code = cli.main(arguments, prog_name="tilesync", standalone_mode=False)
    except click.exceptions.Abort:
        code = _report_error(arguments, Interrupted("interrupted"))
    except click.ClickException as error:
        code = _report_usage_error(arguments, error)
    except TilesyncError as error:
        code = _report_error(arguments, error)
    except Exception as error:  # noqa: BLE001 - last handler: a bug is reported and ends with exit 1
        code = _report_lost_help_output(arguments, error) or _report_bug(arguments, error)
    return code if isinstance(code, int) else 0


def _exit_process(code: int) -> NoReturn:
    """End the process, without interpreter shutdown if pyreqwest or the pings are loaded.

    A thread of pyreqwest 0.15.1 that needs the interpreter during shutdown aborts the process and loses the exit code.
    The shutdown also waits for a ping whose resolver hangs, and for a read of a server from a disk that hangs.
    """
    if not {"pyreqwest", "tilesync.monitoring.ping", "tilesync.serving.server"}.isdisjoint(sys.modules):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError):  # the reader of the pipe has closed it
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _report_error(arguments: list[str], error: TilesyncError) -> int:
    """Report an error outside a session; return the exit code."""
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.reporters import print_error

    print_error(error)
    return report_early_error(cli, arguments, error)


def _report_usage_error(arguments: list[str], error: click.ClickException) -> int:
    """Report a usage error in the words of click, with the usage of the command; return the exit code."""
    from tilesync.api.masking import SecretMasker
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.streams import write_stream

    text = io.StringIO()
    error.show(text)
    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(text.getvalue()))
    return report_early_error(cli, arguments, UsageError(error.format_message()))


def _report_lost_help_output(arguments: list[str], error: Exception) -> int:
    """Report that --help or --version could not be written; return the exit code, 0 for any other error."""
    from tilesync.cli.output.streams import create_output_error, write_stream

    if not isinstance(error, OSError) or not {"-h", "--help", "--version"} & set(arguments):
        return 0
    write_stream(sys.stdout, "")  # otherwise Python tries to write the rest again at exit
    return _report_error(arguments, create_output_error(error))


def _report_bug(arguments: list[str], error: Exception) -> int:
    import traceback

    from tilesync.api.masking import SecretMasker
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.streams import write_stream

    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(traceback.format_exc()))
    bug = TilesyncError("this is a bug in tilesync", hint="please report it with the lines above")
    return report_early_error(cli, arguments, bug, kind=type(error).__name__)
