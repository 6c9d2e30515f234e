"""Output of the command line: messages, progress, JSON lines, logs, reports and tables.

atomic_file    write a report in one step, a log line by line
diff_lines     differences between two versions: lines, table and summary
log_file       the log file of --log-file: events as JSON lines
masking        mask secrets in all output
path_checks    refuse unsafe paths for --report, --log-file and --page
progress       the progress display: a bar, or one line per minute
progress_bar   the text of the bar: rate, remaining time
queued_output  bounded queues and threads for the output of a server
report         write the report file of --report
reporters      observers that print messages and JSON lines
status_table   the tables of `status`: mirrors, and the runs of one
streams        write to stdout and stderr, with their errors; the width of the terminal
summary        the last sentences of a command, and its tables
table          align columns, cut and wrap text
"""
