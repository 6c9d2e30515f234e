"""The Python API: what the command line calls, too.

aio           the functions, for a running event loop
auth          identities
blocking      run a coroutine from blocking code
inputs        plain values, parsed into requests
masking       secrets, kept out of events and errors
monitor       live counts, and the last JSON line
options       keyword arguments, with their meaning
results       what the functions return
rows          rows of lists: exports, versions
sync          the functions, for blocking code
target_names  SOURCE and DEST, named without signatures
"""
