"""The iTwin service: authentication, and the Mesh Export API.

auth          access tokens and share keys for the API
jwt           expiry of an access token
mesh_export   client of the Mesh Export API: list exports, find the latest, get its link
portal_urls   the iModel id in a URL of a portal or viewer
responses     parser for the JSON of the API and of the token endpoint
"""
