"""Decisions without I/O: functions that take bytes and values, and return results with reasons.

backoff        retry policy: exponential backoff within a budget
export_record  fields of the service's export record that are kept
filters        include and exclude globs
foreign_json   checked parsing of untrusted JSON
guards         limits on deleting and shrinking
http_headers   media type, encoding and caching of stored files
http_status    HTTP status verdicts, Retry-After, HTTP dates
manifest       lines of a manifest, written and read
masking        secrets masked in texts
option_values  durations, rates and counts, parsed from text
ownership      owner of a destination; names reserved in it
plan           keep or fetch each blob; choose the version to work on
retention      versions to retire, by number and age
safe_names     blob names that can be stored; names of versions
sidecar        lines of the index beside a manifest
urls           allowed URLs: https, or http on this machine
wording        counted nouns, sizes and time spans for messages
"""
