-- wrk script: GET without a body.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/result.lua")
