// libpq as Debian carries it (libpq-dev); the include path comes from pkg-config.
#include <libpq-fe.h>
#include <sys/prctl.h>

// Swift does not import variadic functions. Names the calling thread; the kernel keeps 15 bytes.
static inline void clibpq_name_thread(const char *name) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
}
