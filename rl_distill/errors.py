"""The errors that speak to the user, under one base class.

May be imported by everything. Does not print, exit or decide who is told: that is launching.py's.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right. The message says in one line what is wrong, where, and what to do."""


class LaunchError(UserError, RuntimeError):
    """The processes were not started as the run needs them."""
