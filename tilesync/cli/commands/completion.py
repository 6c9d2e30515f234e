"""`tilesync completion`: print the script that completes commands and options in a shell."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")

HELP = """\
Print the script that completes commands, options and paths in SHELL: bash, zsh or fish.

bash: write it to the folder of completions, or, if the package bash-completion is not installed, to a file that
~/.bashrc sources:

\b
  mkdir -p ~/.local/share/bash-completion/completions
  tilesync completion bash > ~/.local/share/bash-completion/completions/tilesync

zsh: write it to a folder in $fpath, which ~/.zshrc names before it calls compinit:

\b
  mkdir -p ~/.zfunc
  tilesync completion zsh > ~/.zfunc/_tilesync
  # in ~/.zshrc: fpath+=(~/.zfunc); autoload -Uz compinit; compinit

fish: write it to its folder of completions:

\b
  tilesync completion fish > ~/.config/fish/completions/tilesync.fish

Then open a new shell. The script asks tilesync itself for completions, so it does not change with its options.
"""
"""Text of --help. Lines after a backspace are not wrapped."""


@click.command(help=HELP, short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> int:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from tilesync.cli.output.streams import StdoutWriter

    program = context.find_root()
    completion_class = get_completion_class(shell)
    assert completion_class is not None, "click has a class for each of these shells"
    stdout = StdoutWriter()
    stdout.write(completion_class(program.command, {}, "tilesync", "_TILESYNC_COMPLETE").source())
    if (error := stdout.output_error()) is not None:
        raise error
    return 0
