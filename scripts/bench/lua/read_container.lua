-- Requests for the containers of exports: the stored pages of their listings; nginx itself sends the files.
local asked = ngx.req.get_uri_args()
if asked.comp == "list" then
    local page = asked.marker
    if not page or page == "" or page == true then
        local prefix = asked.prefix
        if prefix == true or not prefix then prefix = "" end
        page = asked.delimiter and asked.delimiter ~= "" and ngx.md5(prefix) or "0"
    end
    return ngx.exec("/lists/" .. ngx.var.container .. "/" .. page .. ".xml")
end
if asked.restype == "container" then return ngx.exit(200) end
if ngx.var.http_x_ms_range then ngx.req.set_header("Range", ngx.var.http_x_ms_range) end
