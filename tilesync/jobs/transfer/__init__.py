"""Transfer: bring the wanted files of a version into the destination.

carry_over      link the files that an earlier version stores unchanged, many at a time
download        download one blob until its bytes are correct
result_buffer   results that are not in the catalog yet
reuse           link or copy files that other versions store already
server_copy     server-side copy: the destination store reads the blob itself
transfer        queue, workers and journal of one transfer
worker_batches  worker lane: batches of small blobs for the worker processes
"""
