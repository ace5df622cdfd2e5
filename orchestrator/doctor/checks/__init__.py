"""One small function per check, from a `Host` to a `Finding`; None where the question does not arise on this host. Pure."""
