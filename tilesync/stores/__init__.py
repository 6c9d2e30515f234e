"""Stores: the storage backends that a destination can use.

base          the default layout: each version has a folder of its own
status_files  small JSON documents: owner, last success, holder of the lock

azure         Azure Blob Storage
local         a local folder
object_store  the parts that all object stores share
s3            S3 and servers that are compatible with it
"""
