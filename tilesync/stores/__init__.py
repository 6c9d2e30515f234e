"""Stores: the storage backends that a destination can use.

base           the default layout: each version has a folder of its own
lock_holder    the process that holds a lock, as a record and as text
opening        the modes of opening a destination, and the read-only one
status_files   small JSON documents beside the versions
worker_target  where worker processes put small files

azure          Azure Blob Storage
local          a local folder
object_store   the parts that all object stores share
s3             S3 and servers that are compatible with it
"""
