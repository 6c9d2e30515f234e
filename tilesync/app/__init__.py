"""Assembly: put the adapters of a command together from its request, and run its job.

commands       one function per command: mirror, dry run, verify, rollback, versions, exports, viewer link
destinations   open a destination for a run, a plan, reading or an audit
locations      parse az://, https:// and s3:// locations
requests       `MirrorRequest`, `Target` and `StoreOptions`: what a command is asked for, fully resolved
service        Mesh Export service: identity, HTTP clients, API client
sources        the resolver that SOURCE needs
worker_tasks   tasks of worker processes: fetch a batch, verify a batch, warm up
workers        `ProcessWorkers`: batches sent to the process pool
"""
