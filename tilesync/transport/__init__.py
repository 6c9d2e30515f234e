"""HTTP clients, with errors of the network mapped to those of tilesync.

api_client         API calls, token requests and listing pages through httpx, with retries
api_pace           one rate of API calls for all users in a process
blob_client        streamed GET and PUT of bodies through pyreqwest (asynchronous)
blob_client_sync   requests that block their thread, with retries
connect_errors     failed connections that a retry does not cure
content_decoding   gzip and deflate content codings, decoded within bounds
http1_connect      TCP and TLS connect for the HTTP/1.1 pool
http1_connection   one HTTP/1.1 connection: send a request, parse its response
http1_pool         connection pool for small bodies over HTTP/1.1
proxies            proxy selection from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY
rate_limit         bandwidth limit over all connections
renewing_link      SAS link that renews itself (asynchronous)
renewing_link_sync SAS link that renews itself (blocking)
request_batches    batches of small requests that a thread waits for: copies within a store
retry              retry loops, asynchronous and blocking; `Retry-After` in seconds
tls                trusted certificate authorities, proxy settings and User-Agent of all clients
"""
