-- wrk script: orders of one unit at a moderate rate: before each request a connection waits 0 to twice the mean. After `--`: the product's id, and
-- the mean wait in milliseconds.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/order.lua")
local orders = init
local mean
function init(args)
  orders(args)
  mean = tonumber(args[2])
  math.randomseed(os.time())
end
function delay() return math.floor(math.random() * 2 * mean + 0.5) end
