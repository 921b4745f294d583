-- wrk script: GET without a body. Run with -t1 and, after `--`, the folder of the scripts.
function init(args)
  dofile(args[1] .. "/result.lua")
  wrk.init(args)
end
