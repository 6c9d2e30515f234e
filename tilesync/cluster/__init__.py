"""Clusters: run worker tasks on the workers of a Dask cluster.

address        the address of a cluster, as `--cluster` takes it
client         connect to a cluster, or start one on this machine
pool           pool of tasks that the workers of a cluster run
worker_side    what runs in a worker of the cluster
"""
