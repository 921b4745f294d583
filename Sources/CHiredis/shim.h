// hiredis as Debian carries it (libhiredis-dev): the reply reader alone is used, the sockets belong to NIO.
#include <hiredis/hiredis.h>
#include <hiredis/read.h>
