"""A process that the system starts no further thread for: each would need more address space than there is left."""

from typing import Final

#: What such a process runs first.
NO_MORE_THREADS: Final = """
import resource, threading
threading.stack_size(2**30)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**29,) * 2)
"""
