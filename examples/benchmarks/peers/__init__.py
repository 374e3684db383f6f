"""The contenders: each module has ``contenders(workload)``, a list, and imports its framework where it is used."""
