"""Destinations in S3 and in S3-compatible stores.

client       `S3Objects`: read, write, list, copy and delete objects
copy_requests  signed CopyObject requests, for copies in batches
direct_put   uploads and reads of worker processes
errors       responses of the service to our errors
lease        the lock of a destination: one object, replaced by conditional writes
multipart    uploads in parts, and copies, through boto3
name_probe   find the characters in names that a server misreads
objects      single requests, through obstore
session      open a bucket: credentials, region, endpoint, proxies
signing      requests that we sign ourselves
upload       upload a large object in parts
"""
