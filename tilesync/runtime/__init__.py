"""Services of the machine: event loop, threads, processes and safe file access.

batching       blocking reads in threads, batched while they are fast
clock          wall clock and monotonic clock
event_loop     uvloop if installed; settings of the garbage collector
gzip           streaming gzip decompression
open_files     raise the limit of open files
os_errors      OSError translated to errors of tilesync
process_pool   pool of worker processes that run picklable tasks
safe_open      open regular files and read small files without blocking forever
secret_files   secrets in variables, or in files that variables name
subprocess     commands of the user: run, limit, cancel
task_groups    gather with cancellation; the relevant error of a group
task_pool      tasks that run in other processes, and the pools that run them
threads        blocking work in threads, with a stop event
toml_file      TOML files of the user, with the line of each key
"""
