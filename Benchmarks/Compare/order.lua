-- wrk script: orders of one unit. Run with -t1 and, after `--`, the folder of the scripts and the product's id.
function init(args)
  dofile(args[1] .. "/result.lua")
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = '{"productId":' .. args[2] .. ',"quantity":1,"buyerId":"u-1"}'
  wrk.init(args)
end
