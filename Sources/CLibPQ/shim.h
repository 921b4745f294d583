// libpq as Debian carries it (libpq-dev); the include path comes from pkg-config.
#include <libpq-fe.h>
