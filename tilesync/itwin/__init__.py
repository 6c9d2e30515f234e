"""The iTwin service: authentication, the Mesh Export API, and the lists of iModels and iTwins.

api_pages     pages of any list of the service, with token renewal and errors
auth          access tokens and share keys for the API
imodels       client of the iModels and iTwins APIs: list what an identity can see
jwt           expiry of an access token
mesh_export   client of the Mesh Export API: list exports, find the latest, get its link
portal_urls   ids of iModels and iTwins in a URL of a portal or viewer
responses     parser for the JSON of the APIs and of the token endpoint
"""
