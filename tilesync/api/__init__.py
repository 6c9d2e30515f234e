"""The Python API, which the command line calls as well.

aio              async functions, for a running event loop
auth             identities
blocking         run a coroutine from blocking code
call             one call: its events, threads, and the result that an error carries
diffing          compare two versions, or a version and a source
inputs           parse plain values into requests
locations        parse SOURCE and DEST; name them without signatures, for reports
masking          mask secrets in events and errors
mirroring        one run of `mirror` or `plan`, alone or among others
monitor          live counts, and the last JSON line
options          keyword arguments, with their meaning
packing          write a version into one file
publish_command  the command of --on-publish
results          what the functions return
rows             rows of lists: exports, versions
sync             blocking functions
"""
