"""Between bytes and operations: requests and answers, keys, faults, the file, and what goes over the wire."""
