-- List Blobs for containers that can be written: pages of 5,000, in the order of the names.
local files = require "files"
local BLOBS_PER_PAGE = 5000
local BLOB = "<Blob><Name>%s</Name><Properties><Last-Modified>%s</Last-Modified><Etag>0x%s</Etag>"
    .. "<Content-Length>%s</Content-Length><Content-Type /><Content-Encoding /><Content-MD5 />"
    .. "<BlobType>BlockBlob</BlobType></Properties></Blob>\n"

local container, asked = ngx.var.container, ngx.req.get_uri_args()
local prefix = type(asked.prefix) == "string" and asked.prefix or ""
local rows, marker = files.list_page(ngx.var.uploads .. "/" .. container .. "/", prefix, asked.marker, BLOBS_PER_PAGE)
local page = {}
for number, row in ipairs(rows) do
    local etag = ngx.md5("/account/" .. container .. "/" .. row.name)
    page[number] = BLOB:format(row.name, ngx.http_time(row.modified), etag, row.size)
end
ngx.print(
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>', table.concat(page), "</Blobs><NextMarker>",
    marker, "</NextMarker></EnumerationResults>"
)
