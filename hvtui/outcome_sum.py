"""How many of several changes were done, failed or cancelled, in the words of both front ends. Pure."""

from __future__ import annotations


def in_sum(total: int, *, failed: int, cancelled: int) -> str:
    """ "2 of 9 failed", or "6 done, 1 cancelled, 2 failed": what the user cancelled did not fail."""
    if not cancelled:
        return f"{failed} of {total} failed"
    counts = {"done": total - cancelled - failed, "cancelled": cancelled, "failed": failed}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
