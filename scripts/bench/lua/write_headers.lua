-- Status and headers of a write, as Azure sends them; nginx itself answers 201 or 204.
local method = ngx.req.get_method()
if method == "PUT" and ngx.status < 300 then
    if ngx.status == 204 then  -- nginx sends no length with it
        ngx.status = 201
        ngx.header["Content-Length"] = 0
    end
    ngx.header["ETag"] = '"0x' .. ngx.md5(ngx.var.uri) .. '"'
    ngx.header["Last-Modified"] = ngx.http_time(ngx.time())
    ngx.header["Content-MD5"] = ngx.var.http_content_md5
elseif method == "DELETE" and ngx.status == 204 then
    ngx.status = 202
    ngx.header["Content-Length"] = 0
end
