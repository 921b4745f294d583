// What Swift's Glibc module leaves out of the kernel's interface: a thread's name (a variadic function) and a counter that can be polled.
#pragma once
#include <sys/eventfd.h>
#include <sys/prctl.h>

// Names the calling thread; the kernel keeps 15 bytes.
static inline void cthreads_name_thread(const char *name) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

// A counter of the kernel's that `poll` sees as readable while it is not zero. -1: no descriptor is left, see errno.
static inline int cthreads_eventfd(void) {
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}
