"""Tests mirror the four packages; servers.py has the real servers they run against."""
