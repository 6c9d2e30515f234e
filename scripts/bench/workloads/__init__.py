"""The workloads of `make bench`; each function runs one against an open bench, and returns its tables.

- downloads: small and large files onto the disk and into memory
- uploads: PUTs, and copies from container to container
- changed: exports of which one file or nothing has changed, into a folder
- reading: start-up, listings and verification
"""
