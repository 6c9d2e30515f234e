"""The command line: parse arguments, call the Python API, return an exit code.

commands          one file per command (a package)
config_file       defaults of options from the config file
config_values     values of options in TOML files, checked
early_exit        JSON line and report of errors before a session exists
environment       warnings of unknown environment variables
help_groups       groups of options in --help; the class of commands
main              the group of commands, and the entry point
mirror_reporters  the status and the summary of a mirror, for monitors
option_origins    values of options, and the variable, line or default they are from
options           options that commands share
output            terminal, JSON lines, log file, report (a package)
params            parameter types: durations, rates, counts, paths, destinations
parse             options converted to arguments of the Python API
publish_hook      the command of --on-publish
run_reporters     start and end of a run, reported to monitors
session           one run of a command: observers, signals, exit code
signals           signals that stop a run
"""
