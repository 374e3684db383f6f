"""Fitting: training loops, what they measure, and what they return."""
