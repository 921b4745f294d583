-- The figures of one run as one line that a shell reads: times in microseconds, `refused` is what was answered with 400 or above.
-- Loaded by the other scripts.
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT requests=%d microseconds=%d refused=%d broken=%d p50=%d p99=%d\n",
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
