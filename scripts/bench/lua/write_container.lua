-- Requests for containers that can be written, but for those that nginx answers itself: GET, HEAD, PUT and DELETE.
local files = require "files"
local asked, method, headers = ngx.req.get_uri_args(), ngx.req.get_method(), ngx.req.get_headers()

if asked.comp == "list" then return ngx.exec("/uploaded/" .. ngx.var.container, ngx.var.args) end
if asked.restype == "account" then
    ngx.header["x-ms-sku-name"], ngx.header["x-ms-account-kind"] = "Standard_LRS", "StorageV2"
    return ngx.exit(200)
end
if asked.comp == "lease" or asked.restype == "container" then
    ngx.header["x-ms-lease-id"] = headers["x-ms-proposed-lease-id"]
    return ngx.exit(method == "PUT" and 201 or 200)
end
local target = ngx.var.uploads .. "/" .. ngx.var.container .. "/" .. ngx.var.name

local function block_path(id) return ngx.var.lists .. "/" .. ngx.md5(target .. id) .. ".block" end

if method == "PUT" and asked.comp == "block" then
    files.write(block_path(asked.blockid), files.read_body())
    return ngx.exit(201)
end
if method == "PUT" and asked.comp == "blocklist" then
    local blocks = {}
    for _, id in files.read_body():gmatch("<(%a+)>([^<%s]+)</") do
        blocks[#blocks + 1] = files.read(block_path(id)) or ""
    end
    files.write(target, table.concat(blocks))
    return ngx.exit(201)
end
if method == "PUT" and asked.comp then return ngx.exit(501) end

-- Put Blob From URL and Copy Blob (which has no x-ms-blob-type), from this container or from an export.
local source = headers["x-ms-copy-source"]
if method == "PUT" and source then
    local container, name = ngx.unescape_uri(source:match("/account/([^?]*)") or ""):match("^([%w-]+)/(.*)$")
    local copied = false
    if container and container:match("^up%d+$") then
        local etag = '"0x' .. ngx.md5("/account/" .. container .. "/" .. name) .. '"'
        if (headers["x-ms-source-if-match"] or etag) ~= etag then return ngx.exit(412) end
        copied = files.link(ngx.var.uploads .. "/" .. container .. "/" .. name, target)
    elseif container then
        local base = container:match("^(%l+)-changed-%d+$") or container
        local content = files.read(ngx.var.exports .. "/" .. container .. "/" .. name)
            or files.read(ngx.var.exports .. "/" .. base .. "/" .. name)
        copied = content ~= nil
        if copied then files.write(target, content) end
    end
    if not copied then return ngx.exit(404) end
    ngx.header["x-ms-copy-status"] = "success"
    ngx.header["x-ms-copy-id"] = ngx.var.request_id
    return ngx.exit(headers["x-ms-blob-type"] and 201 or 202)
end
