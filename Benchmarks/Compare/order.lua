-- wrk script: orders of one unit. Run with -t1 and, after `--`, the product's id.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/result.lua")
function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = '{"productId":' .. args[1] .. ',"quantity":1,"buyerId":"u-1"}'
end
