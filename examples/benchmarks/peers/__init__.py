"""The contenders: each module has a function ``contenders(workload)``, and imports its framework only when called."""
