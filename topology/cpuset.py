"""How is a set of CPU or node numbers written and read? Pure.

The kernel's list form: `0-3,8,10-14:2` (ranges inclusive; `:step` and the used/group form `a-b:used/group`).
The kernel's mask form: comma-separated 32-bit hexadecimal words, the most significant first.
Source: Documentation/admin-guide/kernel-parameters.rst ("cpu lists") and lib/bitmap.c of Linux.
"""

from __future__ import annotations
