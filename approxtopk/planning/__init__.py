"""Planners: pure functions from a request and a device's facts to a plan."""

from .select import plan_select as plan_request

__all__ = ["plan_request"]
