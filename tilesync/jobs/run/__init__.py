"""The shared parts of one run: limits, retries, counters.

adaptive_limit   the adaptive concurrency limit, without I/O: finds how many transfers at once move the most
concurrency      the concurrency limiter: slots for transfers, with a fixed or an adaptive limit
context          RunContext: clock, observer, counters, limiter and retry time of one run
name_warnings    one warning per run about file names that Windows cannot store
retry            retry a blob until it arrives or its retry budget is spent
stats            RunStats: the counters of one run
"""
