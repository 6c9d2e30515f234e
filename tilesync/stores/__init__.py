"""Stores: the storage backends that a destination can use.

base            publications: what all stores share, and the default layout
opening         the modes of opening a destination, and the read-only one
presence_pages  presence check of the files that a catalog lists, page by page
status_files    small JSON documents: owner, last success, holder of the lock
worker_target   where worker processes put small files, and read them

azure           Azure Blob Storage
local           a local folder
object_store    the parts that all object stores share
packages        a version in one .3tz, .3dtiles, .tar or .zip file
s3              S3 and servers that are compatible with it
"""
