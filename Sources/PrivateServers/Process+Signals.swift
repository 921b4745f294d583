public import Foundation

extension Process {
    /// Starts the process with no signal blocked.
    ///
    /// A child inherits the signal mask of the thread that starts it, and threads of Swift's and Dispatch's pools block signals: a shell that gets no SIGCHLD
    /// waits for ever, and a program that ends itself by SIGALRM never ends.
    public func runWithAllSignals() throws {
        var none = sigset_t()
        var before = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try run()
    }
}
