-- A bucket of S3, as far as mirrors need one: objects, copies inside the bucket, conditional writes, deletions, listings.
-- Signatures are not checked.
local files = require "files"
local OBJECTS_PER_PAGE = 1000
local OBJECT = "<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag><Size>%s</Size>"
    .. "<StorageClass>STANDARD</StorageClass></Contents>"

local etags = ngx.shared.etags
local asked, method, headers = ngx.req.get_uri_args(), ngx.req.get_method(), ngx.req.get_headers()
-- Without these headers, nginx leaves their conditions to this script.
for _, name in ipairs {"If-Match", "If-None-Match"} do ngx.req.clear_header(name) end
local bucket, key = ngx.var.bucket, ngx.var.name
local folder = ngx.var.uploads .. "/" .. bucket .. "/"

local function fail(status, code)
    ngx.status = status
    ngx.header["Content-Type"] = "application/xml"
    if method ~= "HEAD" then ngx.print("<Error><Code>", code, "</Code><Message>", code, "</Message></Error>") end
    return ngx.exit(status)
end

-- The MD5 of an object, which is its ETag; nil if there is none. Files that were put into the folder are read once.
local function etag_of(name)
    local etag = etags:get(bucket .. "/" .. name)
    if etag then return etag end
    local content = files.read(folder .. name)
    if not content then return nil end
    etag = ngx.md5(content)
    etags:set(bucket .. "/" .. name, etag)
    return etag
end

local function unquote(etag) return etag and etag:gsub('"', "") end

local function check_conditions()
    local present = (headers["if-match"] or headers["if-none-match"]) and etag_of(key)
    if headers["if-none-match"] == "*" and present then return fail(412, "PreconditionFailed") end
    if headers["if-match"] and not present then return fail(404, "NoSuchKey") end
    if headers["if-match"] and unquote(headers["if-match"]) ~= present then return fail(412, "PreconditionFailed") end
end

local function list()
    local prefix = type(asked.prefix) == "string" and asked.prefix or ""
    local after = type(asked["start-after"]) == "string" and asked["start-after"] or ""
    local rows, marker = files.list_page(folder, prefix, asked["continuation-token"], OBJECTS_PER_PAGE)
    local page = {}
    for _, row in ipairs(rows) do
        if row.name > after then
            local modified = os.date("!%Y-%m-%dT%H:%M:%S.000Z", row.modified)
            page[#page + 1] = OBJECT:format(row.name:gsub("&", "&amp;"), modified, etag_of(row.name), row.size)
        end
    end
    local more = marker ~= "" and "<IsTruncated>true</IsTruncated><NextContinuationToken>" .. marker
        .. "</NextContinuationToken>" or "<IsTruncated>false</IsTruncated>"
    ngx.header["Content-Type"] = "application/xml"
    ngx.print(
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>',
        bucket, "</Name><KeyCount>", #page, "</KeyCount>", more, table.concat(page), "</ListBucketResult>"
    )
end

local function copy()
    local source = ngx.unescape_uri(headers["x-amz-copy-source"]):match("^/?[^/]+/(.*)$")
    local etag = etag_of(source)
    if not etag then return fail(404, "NoSuchKey") end
    local expected = headers["x-amz-copy-source-if-match"]
    if expected and unquote(expected) ~= etag then return fail(412, "PreconditionFailed") end
    files.link(folder .. source, folder .. key)
    etags:set(bucket .. "/" .. key, etag)
    ngx.header["Content-Type"] = "application/xml"
    local now = os.date("!%Y-%m-%dT%H:%M:%S.000Z")
    ngx.print("<CopyObjectResult><LastModified>", now, "</LastModified><ETag>&quot;", etag, "&quot;</ETag></CopyObjectResult>")
end

local function put()
    local content = files.read_body()
    check_conditions()
    files.write(folder .. key, content)
    local etag = ngx.md5(content)
    etags:set(bucket .. "/" .. key, etag)
    ngx.header["ETag"] = '"' .. etag .. '"'
    ngx.header["Content-Length"] = 0
end

local function get()
    local content, etag = files.read(folder .. key), etag_of(key)
    if not content then return fail(404, "NoSuchKey") end
    if headers["if-match"] and unquote(headers["if-match"]) ~= etag then return fail(412, "PreconditionFailed") end
    ngx.header["ETag"] = '"' .. etag .. '"'
    ngx.header["Last-Modified"] = ngx.http_time(ngx.time())
    local first, last = (headers["range"] or ""):match("^bytes=(%d+)-(%d*)$")
    if first and tonumber(first) < #content then
        last = math.min(tonumber(last) or #content - 1, #content - 1)
        ngx.status = 206
        ngx.header["Content-Range"] = ("bytes %d-%d/%d"):format(first, last, #content)
        content = content:sub(first + 1, last + 1)
    end
    ngx.header["Content-Length"] = #content
    if method == "GET" then ngx.print(content) end
end

local function delete(name)
    files.unlink(folder .. name)
    etags:delete(bucket .. "/" .. name)
end

if key == "" then
    if method == "POST" and asked.delete then
        ngx.header["Content-Type"] = "application/xml"
        ngx.print('<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">')
        for name in files.read_body():gmatch("<Key>(.-)</Key>") do
            delete((name:gsub("&amp;", "&")))
            ngx.print("<Deleted><Key>", name, "</Key></Deleted>")
        end
        ngx.print("</DeleteResult>")
    elseif method == "GET" and asked["list-type"] then
        list()
    elseif method == "GET" and asked.uploads then
        ngx.header["Content-Type"] = "application/xml"
        ngx.print("<ListMultipartUploadsResult></ListMultipartUploadsResult>")
    elseif method == "GET" and asked.location then
        ngx.print("<LocationConstraint></LocationConstraint>")
    elseif method ~= "HEAD" and method ~= "PUT" then
        fail(501, "NotImplemented")
    end
elseif method == "PUT" and headers["x-amz-copy-source"] and not asked.uploadId then
    copy()
elseif method == "PUT" and not asked.uploadId then
    put()
elseif method == "GET" or method == "HEAD" then
    get()
elseif method == "DELETE" then
    delete(key)
    ngx.status = 204
else
    fail(501, "NotImplemented")
end
