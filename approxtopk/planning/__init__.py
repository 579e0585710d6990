"""Planners: pure functions from a request and a device's facts to a plan."""
