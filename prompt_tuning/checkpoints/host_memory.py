"""Makes the C library give freed memory back, so that a load's peak is what it holds and not what it held."""

import ctypes

# glibc's name of the setting in <malloc.h>. Unit of its value: bytes.
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 4 * 2**20


def give_back_large_blocks() -> None:
    """Has freed blocks of 4 MiB and more returned to the system at once; where the C library is not glibc, nothing.

    glibc raises that threshold to 32 MiB as soon as larger blocks are freed, and then keeps, in an arena for each
    thread, what reading a checkpoint in blocks of 16 MiB frees. The setting stays for the process: a block of that size
    then costs a system call, which copying its content outweighs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
