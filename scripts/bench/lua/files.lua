-- Files for the services: copies and their folders, by system calls, since Lua has none.
local ffi = require "ffi"
ffi.cdef [[
int link(const char *from, const char *to);
int unlink(const char *path);
int mkdir(const char *path, unsigned int mode);
]]

local files = {}

function files.read(path)
    local file = io.open(path, "rb")
    local content = file and file:read("*a")
    if file then file:close() end
    return content
end

local function make_folders(path)
    for position in path:gmatch("()/") do ffi.C.mkdir(path:sub(1, position - 1), 493) end
end

-- The body of the request.
function files.read_body()
    ngx.req.read_body()
    local path = ngx.req.get_body_file()
    return path and files.read(path) or ngx.req.get_body_data() or ""
end

-- Write a file as a whole: other requests see the old or the new one.
function files.write(path, content)
    local draft = path .. ".draft"
    local file = io.open(draft, "wb")
    if not file then
        make_folders(path)
        file = assert(io.open(draft, "wb"))
    end
    file:write(content)
    file:close()
    os.rename(draft, path)
end

-- Link a file to a second name: a store copies without reading the bytes, too. False if there is no such file.
function files.link(from, to)
    if ffi.C.link(from, to) == 0 then return true end
    make_folders(to)
    ffi.C.unlink(to)
    return ffi.C.link(from, to) == 0
end

-- A page of the files below a folder that begin with a prefix, ordered by their names, and the marker of the next page.
-- The first page lists the folder into a file; a marker is the name of that file and a position in it.
function files.list_page(folder, prefix, marker, count)
    local lists = ngx.var.lists
    local below = prefix:match("^[%w/._-]*/") or ""
    local list, position = (type(marker) == "string" and marker or ""):match("^(%x+)-(%d+)$")
    if not list then
        list, position = ngx.md5(folder .. prefix .. ngx.now() .. ngx.var.request_id), 0
        local find = "cd '%s%s' 2>/dev/null && find . -type f -printf '%%P\\t%%s\\t%%T@\\n' | LC_ALL=C sort > '%s/%s'"
        os.execute(find:format(folder, below, lists, list))
    end
    local rows, found = {}, io.open(lists .. "/" .. list)
    if not found then return rows, "" end
    found:seek("set", tonumber(position))
    for line in found:lines() do
        local path, size, modified = line:match("^(.*)\t(%d+)\t(%d+)")
        local name = below .. path
        if name:sub(1, #prefix) == prefix then
            rows[#rows + 1] = {name = name, size = size, modified = tonumber(modified)}
        end
        if #rows == count then break end
    end
    local next_position = found:seek()
    local more = next_position < found:seek("end")
    found:close()
    return rows, more and list .. "-" .. next_position or ""
end

files.unlink = function(path) return ffi.C.unlink(path) == 0 end

return files
