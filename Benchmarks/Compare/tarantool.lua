#!/usr/bin/env tarantool
-- Peer: stock, ledger and HTTP in one Tarantool, each commit synced to the disk before it is answered.
-- Settings by environment: PORT, WORK_DIR. GET /admin/reset?stock=N fills product 1, GET /stock shows it.
local socket = require('socket')
local json = require('json')

box.cfg{
  work_dir = os.getenv('WORK_DIR'), wal_mode = 'fsync', memtx_memory = 1024 * 1024 * 1024,
  -- Snapshots are for a server that lives longer than a comparison.
  checkpoint_interval = 0, log_level = 'warn',
}
local stock = box.schema.space.create('stock', { if_not_exists = true })
stock:create_index('primary', { if_not_exists = true, parts = { 1, 'unsigned' } })
-- key, product, order, quantity, remaining
local ledger = box.schema.space.create('ledger', { if_not_exists = true })
ledger:create_index('primary', { if_not_exists = true, parts = { 1, 'string' } })

-- Returns a status and what is left.
local function decrease(product, key, order, quantity)
  local known = ledger:get(key)
  if known ~= nil then
    if known[2] ~= product or known[3] ~= order or known[4] ~= quantity then return 422, 0 end
    return 200, known[5]
  end
  local row = stock:get(product)
  if row == nil or row[2] < quantity then return 400, 0 end
  local left = row[2] - quantity
  -- Nothing yields between the reads and the commit, which waits for the disk together with those of other fibers.
  box.begin()
  stock:replace{ product, left }
  ledger:insert{ key, product, order, quantity, left }
  box.commit()
  return 200, left
end

local reasons = { [200] = 'OK', [400] = 'Bad Request', [404] = 'Not Found', [422] = 'Unprocessable Entity', [503] = 'Service Unavailable' }
local function reply(connection, status, body, kind)
  return connection:write('HTTP/1.1 ' .. status .. ' ' .. reasons[status] .. '\r\nContent-Type: ' .. kind .. '\r\nContent-Length: ' .. #body ..
    '\r\n\r\n' .. body)
end

local function serve(connection)
  while true do
    local head = connection:read({ delimiter = '\r\n\r\n', chunk = 16384 })
    if head == nil or head == '' then return end
    local length = tonumber(head:match('[Cc]ontent%-[Ll]ength: *(%d+)') or 0)
    if length > 16384 then return end
    local body = length > 0 and connection:read(length) or ''
    local method, path = head:match('^(%u+) (%S+)')
    local product = path and tonumber(path:match('^/products/(%d+)/stock'))
    if method == 'PATCH' and product then
      local key = head:match('[Ii]dempotency%-[Kk]ey: *([^\r]+)')
      local decoded, request = pcall(json.decode, body)
      if not decoded or not key or type(request.quantity) ~= 'number' or request.quantity <= 0 or type(request.orderId) ~= 'number' then
        reply(connection, 400, '{"error":"VALIDATION_ERROR"}', 'application/json')
      else
        local committed, status, left = pcall(decrease, product, key, request.orderId, request.quantity)
        if not committed then
          reply(connection, 503, '{"error":"UNAVAILABLE"}', 'application/json')
        elseif status == 200 then
          reply(connection, 200, '{"success":true,"remainingStock":' .. tostring(left):gsub('U*LL$', '') .. ',"message":"OK"}', 'application/json')
        else
          reply(connection, status, '{"error":"INSUFFICIENT_STOCK","message":"sold out","details":null}', 'application/json')
        end
      end
    elseif method == 'GET' and path:match('^/admin/reset%?stock=%d+$') then
      stock:replace{ 1, tonumber(path:match('%d+$')) }
      reply(connection, 200, 'done\n', 'text/plain')
    elseif method == 'GET' and path == '/stock' then
      local row = stock:get(1)
      reply(connection, 200, (tostring(row and row[2] or 0):gsub('U*LL$', '')) .. '\n', 'text/plain')
    else
      reply(connection, 404, '{"error":"NOT_FOUND"}', 'application/json')
    end
  end
end

socket.tcp_server('127.0.0.1', tonumber(os.getenv('PORT')), { name = 'peer', handler = serve, backlog = 1024 })
