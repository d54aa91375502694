"""Evaluation, one module a task."""
