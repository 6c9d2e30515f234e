"""The workloads of `make bench`; each function runs one against an open bench, and returns its tables.

- downloads: small and large files onto the disk and into memory
- uploads: PUTs, and copies from container to container
- changed: exports of which one file or nothing has changed, into a folder
- inside_store: the same into a container and a bucket: requests and their price
- tail: from the last byte to the published version
- reading: start-up, listings and verification
- limits: pinned to cores, and over a shaped line
"""
