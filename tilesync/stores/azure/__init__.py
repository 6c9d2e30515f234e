"""Destinations in Azure Blob Storage.

block_upload    upload a large blob in blocks
client          `AzureObjects`: read, write, list, copy and delete blobs
copy_from_url   copy blobs from another account, by the service
copy_internal   copy blobs within one container, by the service
credentials     storage account keys, connection strings, Entra; SAS links, new containers, batch delete
direct_put      upload and read small blobs from worker processes
errors          responses of the service to our errors
lease           the lock of a destination: a blob lease
requests        send requests through links that renew themselves, with retries
sas_link        SAS links to a destination that renew themselves
"""
