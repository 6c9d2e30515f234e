"""The command line: parse arguments, call the Python API, return an exit code.

demo          `tilesync demo`
doctor        `tilesync doctor`
early_exit    JSON line and report of errors before a session exists
environment   warnings of unknown environment variables
exports       `tilesync exports`
link          `tilesync link`
main          the group of commands, and the entry point
mirror        `tilesync mirror`
options       options that commands share
output        terminal, JSON lines, log file, report (a package)
params        parameter types: durations, rates, counts, paths, destinations
parse         options converted to arguments of the Python API
publish_hook  the command of --on-publish
rollback      `tilesync rollback`
session       one run of a command: observers, signals, exit code
signals       signals that stop a run
verify        `tilesync verify`
versions      `tilesync versions`
"""
