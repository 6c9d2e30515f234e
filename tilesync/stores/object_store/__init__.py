"""The part of an object-store destination that does not depend on the store.

destination      open a destination: lock, catalog, files and publication
draft            send a large file chunk by chunk
files            read, write, copy and delete the files of versions
listing_cache    objects of a listed version, in a temporary database
lock             hold a lease and renew it in a thread
name_warnings    warn about file names that a server misreads
object_names     names of objects, and names that a store cannot hold
publication      manifests, pointer, `latest.json` and trash
resumable_read   read an object, and resume where the body breaks off
"""
