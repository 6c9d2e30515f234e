"""Azure Blob Storage: what its responses, headers and links mean, without I/O.

blob_headers  the blob that response headers describe, its range, and signs that Azure answered
error_hints   hints for the user, by error code
list_blobs    List Blobs pages, and a guard against endless listings
responses     verdicts by status and error code; ETag, MD5 and date values
link_state    a SAS link that renews itself: link to use, time of renewal, meaning of a refusal
sas           SAS links: parsing, expiry, time of renewal
"""
