"""The machine under us: devices, memory, disk, threads."""
