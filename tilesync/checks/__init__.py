"""Doctor: check the service, the identity and the hosting of a destination.

browser_client   HTTP client without identity, like a browser
commands         assembly of the doctor commands, and viewer URLs
environment      checks of this machine: proxies, certificate authorities
hosting_checks   checks of a destination: stored files, then its public URL
public_url       public URL of a destination in an object store
remedies         hints for Azure containers and S3 buckets, as commands
response_rules   rules for HTTP responses: caching, CORS, types, encodings, ranges
result           result of one check
runner           run checks in order, skip those that depend on a failed one
service_checks   checks of identity, API, link and container
service_probe    requests to the service and containers for the checks
web_servers      hints for web servers, as configuration lines
"""
