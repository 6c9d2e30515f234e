"""Assembly: put the adapters of a command together from its request, and run its job.

azure          an Azure container: endpoint, links, and the clients of its store
backends       how the store of each kind of location is opened
cluster        workers of a Dask cluster, and what they must prove
commands       one function per command: mirror, dry run, verify, rollback, versions, exports, viewer link
destinations   open a destination for a run, a plan, reading or an audit
diffing        compare two versions, or a version and the listing of a source
live           a tileset that is served from the container of an export
locations      parse az://, https:// and s3:// locations; dispatch on the kind of a location
packing        write a version into one file
requests       `MirrorRequest`, `Target` and `StoreOptions`: what a command is asked for, fully resolved
service        Mesh Export service: identity, HTTP clients, API client
shared         connections, tokens, limits and worker processes that several runs share
sources        the resolver that SOURCE needs
status         the status of one destination
worker_tasks   tasks of worker processes: fetch a batch, verify a batch, warm up
workers        `PoolWorkers`: batches sent to a pool of processes, or to a cluster
"""
